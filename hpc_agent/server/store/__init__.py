"""All that the server keeps, in SQLite; nothing outside this package speaks SQL or imports sqlite3."""
