"""The offline server: a supervisor, the API behind a production WSGI server, the dispatcher."""
