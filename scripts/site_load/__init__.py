"""Simulated site of ``scripts/bench/site``."""
