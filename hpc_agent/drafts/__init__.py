"""From a command line to a task on the server: ``request`` → ``plan`` (nothing is created) → ``create``."""
