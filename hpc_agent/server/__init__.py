"""The embedded ClearML-compatible server: API, files and pages on one port, kept in SQLite.

A call travels ``app`` (HTTP) → ``dispatch`` (request, who, envelope) → ``services`` (what the action means) → ``store``
(SQL). One call is one transaction.
"""
