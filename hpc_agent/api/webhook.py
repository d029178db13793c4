"""Webhooks: JSON posted to a URL other than the ClearML server's."""

from __future__ import annotations

import requests

from hpc_agent import __version__
from hpc_agent.api.transport import BoundedAdapter
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.redact import Secret

PATIENCE = (5.0, 5.0)  # connect, a piece of the answer; the whole may take five times as long


def post_json(url: Secret, body: bytes) -> None:
    """
    Raises:
        ServerUnreachableError: it did not take it, in words without the URL, which is a secret.
    """
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, BoundedAdapter())
        try:
            with session.post(
                url.reveal(),
                data=body,
                headers={"Content-Type": "application/json", "User-Agent": f"hpc-agent/{__version__}"},
                timeout=PATIENCE,
                # A redirect would turn the request into a GET without its body.
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code
        except (requests.RequestException, OSError, ValueError) as error:
            raise ServerUnreachableError(f"the webhook cannot be reached ({type(error).__name__})") from error
    if not 200 <= status < 300:
        raise ServerUnreachableError(f"the webhook answered with HTTP {status}")
