"""Mutants of the core: wrong lines that the tests must notice."""
