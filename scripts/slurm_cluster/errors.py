"""Errors of a cluster, for the user at the terminal."""

from __future__ import annotations


class ClusterError(Exception):
    """One sentence for the person at the terminal, perhaps with the end of a log."""


class MissingProgramError(ClusterError):
    """Slurm, munge or MariaDB is not installed."""
