"""Watcher of jobs: observes the jobs of tasks from queues, of people's own scripts and of staging jobs in one way.

``history`` keeps what one pass must know of the passes before, ``identity`` tells whether a job or a record is of a
certain submission, ``phase_log`` logs each change of a job's phase.
"""
