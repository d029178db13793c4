"""The file that ``hpc-agent init`` writes: which one, what is in it, and whether it would be understood."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_agent.cli.init_flags import InitFlags
from hpc_agent.cli.shared_options import Shared

if TYPE_CHECKING:
    from hpc_agent.config.load import Configuration
    from hpc_agent.setup.managed_text import Change
    from hpc_agent.setup.section import SetElsewhere


def target(shared: Shared, flags: InitFlags) -> Path:
    """
    Raises:
        InputError: two files are named, or the folder is not there.
    """
    from hpc_agent.config.load import SITE_FILE
    from hpc_agent.config.names import SITE_VARIABLE
    from hpc_agent.errors import InputError

    if flags.site and flags.file:
        raise InputError("--site and --file name two files: give one of them")
    named = shared.config_file or os.environ.get("CLEARML_CONFIG_FILE") or os.environ.get("TRAINS_CONFIG_FILE")
    if flags.site:
        path = Path(os.environ.get(SITE_VARIABLE) or SITE_FILE)
    else:
        path = flags.file or Path(named or "~/clearml.conf")
    path = path.expanduser().absolute()
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise InputError(f"{path} {what}; name a file with --file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, not a file; name a file with --file")
    # The folder too: a file is first written under another name, to be there whole or not at all.
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        as_root = "run this command as root, or name another file in HPC_AGENT_SITE_CONFIG"
        raise InputError(f"you may not write {path}: {as_root if flags.site else 'name another file with --file'}")
    return path


def _environ(flags: InitFlags) -> dict[str, str]:
    """The variables without those that name other files of the configuration."""
    from hpc_agent.config.names import SITE_VARIABLE

    left_out = {"CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"}
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**environ, SITE_VARIABLE: "/dev/null"} if flags.site else environ


def present(path: Path, flags: InitFlags) -> Configuration:
    """
    Raises:
        ConfigError: the file that is there cannot be understood.
        InputError: it has a form to which nothing can be added.
    """
    from hpc_agent.errors import InputError
    from hpc_agent.setup.checked_configuration import load_text

    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    if text.lstrip().startswith("{"):
        raise InputError(
            f"{path} is one {{ … }}, to which no section can be added: take the outermost braces away, or name "
            "another file with --file"
        )
    given = {"hpc.scheduler": flags.scheduler} if flags.scheduler else {}
    return load_text(text, path, _environ(flags), given)


def elsewhere(path: Path, flags: InitFlags) -> SetElsewhere:
    from hpc_agent.config.names import SITE_VARIABLE
    from hpc_agent.setup.checked_configuration import load_text
    from hpc_agent.setup.managed_text import without_section
    from hpc_agent.setup.section import SetElsewhere

    # Not what variables set: they may be gone tomorrow.
    environ = {name: value for name, value in _environ(flags).items() if name == SITE_VARIABLE}
    rest = load_text(without_section(path), path, environ)
    return SetElsewhere(rest.tree, rest.origins)


def check(change: Change, path: Path, flags: InitFlags) -> None:
    """
    Raises:
        ConfigError: the file would not be understood.
    """
    from hpc_agent.errors import ConfigError
    from hpc_agent.setup.checked_configuration import load_text

    try:
        load_text(change.after, path, _environ(flags))
    except ConfigError as error:
        raise ConfigError(
            f"{error}; that is with the new section hpc in it, so nothing was written: `hpc-agent init --file FILE` "
            "writes it to a file of its own, which yours can include"
        ) from None
