"""Hostile inputs, a table for each door; what each of them must not reach."""
