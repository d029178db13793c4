"""Hostile inputs, one table for each door of the program."""
