"""Jobs that researchers submit with sbatch themselves, as tracked tasks. Slurm gets their script untouched.

``command_line`` and ``directives`` read what was asked, ``describe`` makes the task of it, ``submit`` hands it to
sbatch; ``hook`` and ``inside`` run beside the script in the job, ``follow`` and ``due`` bring the task to its end.
"""
