"""Script of a session's task: ``serve.sh`` with the values of one session, each quoted as one word of the shell."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path


def session_script(folder: Path, public_key: str, *, sshd: str = "", jupyter: bool = False) -> str:
    """``folder``: where the job leaves how to connect; ``sshd``: a path on the node, searched for when empty."""
    text = resources.files("hpc_agent.sessions").joinpath("serve.sh").read_text(encoding="utf-8")
    values = {"folder": str(folder), "key": public_key, "sshd": sshd, "jupyter": "yes" if jupyter else ""}
    for name, value in values.items():
        text = text.replace(f"@{name}@", shlex.quote(value), 1)
    return text
