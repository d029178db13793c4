"""The open bridge between ClearML queues and Slurm clusters."""

__version__ = "0.1.0"
