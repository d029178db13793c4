"""Certificates that no authority has signed."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """A certificate of this machine, and its key. ``options`` are openssl's for the key, ``-nodes`` without any."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *(options or ["-nodes"]), *files, *subject]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key
