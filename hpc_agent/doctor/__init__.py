"""Checks of a site: does everything that a task needs work for this user, on this machine and on the nodes?"""
