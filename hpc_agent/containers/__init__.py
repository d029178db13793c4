"""Containers of tasks. The agent stays outside: only the user's process runs inside.

    choice.py          which image a task gets, and with which arguments
    docker_options.py  docker's command line: parsed, the site's rules applied
    gpu_share.py       which GPUs a container may see
    start_script.py    the script that a container starts with
    rank_variables.py  what differs between the ranks of a task
    runtime_api.py     Runtime, which turns a ContainerSpec into an argument list; one module for each runtime
    runtimes.py        … and the setting that selects it
    pull.py            an image on its way from a registry
    images.py          images on this machine and in the shared folder
    image_upkeep.py    … listed and removed
    prepared.py        short commands in an image

A new runtime is one module with a ``Runtime`` and one line in ``runtimes``. What all of them promise is checked by
tests/unit/test_container_runtimes.py.
"""
