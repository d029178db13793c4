"""Drafts of ``hpc-task``: command line → request → plan (nothing is created) → task on the server."""
