"""Interactive sessions: a task that holds an allocation and serves ssh, and JupyterLab, to the one who asked for it.

``session_script`` makes the task's script, ``interactive_session`` creates the task and waits until its job serves.
"""
