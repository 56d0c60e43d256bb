"""HTTP: the router, requests in, responses out, errors as problem documents (RFC 9457)."""
