"""Faults on purpose: what ``scripts/crashes`` and ``scripts/chaos`` are made of."""
