"""The engine for one machine: a SQLite file, one process that writes it, and a dispatcher."""
