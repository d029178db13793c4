"""Storage of the server in SQLite; only this package contains SQL or imports sqlite3."""
