"""``python -m hpc_agent`` is ``hpc-agent``: compute nodes call it by interpreter path."""

from hpc_agent.cli.main import main

if __name__ == "__main__":
    main()
