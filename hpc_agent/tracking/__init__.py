"""Tracked jobs: jobs that researchers submit with sbatch themselves, shown as tasks. Slurm gets their script untouched.

``command_line`` and ``sbatch_options`` read the submission, ``describe`` makes the task of it, ``tracked_submission``
runs sbatch; ``hook`` and ``sidecar`` run next to the script in the job; ``tracked_jobs`` observes, ``decide`` says what
is due, ``follower`` brings the task to its end.
"""
