"""Key of a cached environment: a hash over everything that its content depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from hpc_agent.domain.env import EnvKey
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import redacted

FORMAT = 1
"""Part of every digest and key: raise it when the result of the same request changes."""


def key_parts(
    lock: Sequence[str],
    interpreter: Interpreter,
    *,
    installer: str,
    flags: tuple[str, ...],
    system_site: bool,
    source: str,
    image: str = "",
    site: Sequence[str] = (),
) -> dict[str, object]:
    """Parts of the key, each with its reason.

    ``lock``: normalised lines. ``flags``: those of the installer. ``source``: identity of local code. ``image``: of the
    container image that has the interpreter.
    """
    return {
        "format": FORMAT,  # how environments are made and packed
        "lock": redacted(lock),  # which packages, to the byte
        "executable": interpreter.executable,  # bin/python is a link to it and pyvenv.cfg names its folder
        "version": interpreter.version,  # byte-code and the standard library differ by it
        "implementation": interpreter.implementation,  # CPython's extensions do not load into others
        "abi": interpreter.abi,  # debug and free-threaded builds of one version want other extensions
        "platform": interpreter.platform,  # processor and system of the wheels
        "libc": interpreter.libc,  # a newer glibc admits wheels that older nodes cannot load
        "installer": installer,  # uv and pip pick and build a few packages differently
        "flags": flags,  # such as --no-binary
        "system_site": system_site,  # what is importable in addition to the packages
        "source": source,  # code of the task's own repository that is installed
        **({"image": image} if image else {}),  # its libraries and its packages, which the environment sees
        **({"site": list(site)} if site else {}),  # folders whose packages it sees
    }


def key_of(parts: dict[str, object]) -> EnvKey:
    return EnvKey(hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32])
