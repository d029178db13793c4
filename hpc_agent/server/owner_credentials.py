"""Secrets of the server, and the clearml.conf with which clients connect."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.client_conf import client_conf
from hpc_agent.file_records import read_record, write_atomic, write_record
from hpc_agent.redact import Secret
from hpc_agent.server.store.documents import new_id


class _CredentialRecord(msgspec.Struct, frozen=True):
    access_key: str
    secret_key: str
    signing_key: str
    user: str


@dataclass(frozen=True)
class Owner:
    """Credentials of the server's owner and administrator: key pair and lasting user id; and the key that signs tokens.

    The secret is kept, not only its hash: every start writes the conf file with it.
    """

    access_key: str
    secret_key: Secret
    signing_key: Secret
    user: str


def new_access_key() -> str:
    return secrets.token_hex(10).upper()


def new_secret_key() -> str:
    return secrets.token_urlsafe(32)


def load_or_create(folder: Path) -> Owner:
    """Credentials from ``folder/secrets.json`` (0600); random at the first start.

    Raises:
        CorruptFileError: the file is there but cannot be understood.
    """
    path = folder / "secrets.json"
    record = read_record(path, _CredentialRecord)
    if record is None:
        record = _CredentialRecord(
            access_key=new_access_key(),
            secret_key=new_secret_key(),
            signing_key=secrets.token_urlsafe(48),
            user=new_id(),
        )
        write_record(path, record, mode=0o600)
    return Owner(record.access_key, Secret(record.secret_key), Secret(record.signing_key), record.user)


def write_conf(path: Path, url: str, owner: Owner) -> None:
    """A clearml.conf (0600) for ``CLEARML_CONFIG_FILE``. ``url`` is the server's, without a slash at the end."""
    text = client_conf(
        ApiSettings(web_server=url, api_server=url, files_server=f"{url}/files"),
        owner.access_key,
        owner.secret_key,
        f"Written by `hpc-agent server` at every start. Use it with:  export CLEARML_CONFIG_FILE={path}",
        "In a browser, log in with the access_key and the secret_key.",
    )
    write_atomic(path, text.encode(), mode=0o600)
