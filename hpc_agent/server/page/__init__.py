"""The web page: a module for each area, Jinja templates, and scripts that the browser loads from here alone.

Each view calls the actions of the API with the rights of its user (``service_calls``).
"""
