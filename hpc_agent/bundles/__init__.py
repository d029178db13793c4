"""Bundles of ``hpc-agent build``: a task that can run later, without a network and without the agent's cache.

folder.py      its environment and code in one folder, with a script that runs it
image.py       the same in a container image, which an agent of its own runs at start
recipe.py      the texts of both: scripts and a definition file
"""
