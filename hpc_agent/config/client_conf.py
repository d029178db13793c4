"""A clearml.conf that lets a client in: the servers and a key pair."""

from __future__ import annotations

import json

from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.redact import Secret


def client_conf(api: ApiSettings, access_key: str, secret_key: Secret, *notes: str) -> str:
    """The file's text; ``notes`` are comments at its head. To be written with mode 0600."""
    lines = [
        *(f"# {note}" for note in notes),
        "api {",
        f"    web_server: {json.dumps(api.web_server)}",
        f"    api_server: {json.dumps(api.api_server)}",
        f"    files_server: {json.dumps(api.files_server)}",
        "    credentials {",
        f'        "access_key" = {json.dumps(access_key)}',
        f'        "secret_key" = {json.dumps(secret_key.reveal())}',
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"
