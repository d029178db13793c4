"""Containers of tasks. The agent stays outside: what runs inside is the user's process.

    choice.py      which image a task gets, and with which arguments
    arguments.py   docker's command line: taken apart, the site's rules applied
    gpus.py        which GPUs a container may see
    launch.py      the script that a container starts with
    base.py        Runtime, which turns a Box into an argument list; one file for each that there is
    registry.py    … and the setting that picks it
    images.py      images on this machine and in the shared folder
    room.py        short commands in an image

A new runtime is one file with a ``Runtime`` and one line in ``registry``; tests/unit/test_container_runtimes.py holds
it to what all of them promise.
"""
