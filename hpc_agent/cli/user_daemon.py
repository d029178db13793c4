"""Daemons of other Linux users (``hpc.user_map``): what they get from the main one, and how they start from it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_agent.access import user_name
from hpc_agent.cli.daemon_flags import DaemonFlags
from hpc_agent.cli.daemon_start import DaemonPlan, SharedUsers, start
from hpc_agent.cli.shared_options import Shared
from hpc_agent.clock import SYSTEM
from hpc_agent.config.job_config import resolved_tree
from hpc_agent.config.names import is_setting
from hpc_agent.config.settings import HpcSettings
from hpc_agent.config.tree import Tree, get, put, remove
from hpc_agent.daemon.user_daemons import UserDaemons, command
from hpc_agent.domain.user_map import UserMap, UserShare
from hpc_agent.errors import ConfigError, InputError
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.schedulers import backends

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables that the other users' daemons get with the document: sudo hands on its own choice. All settings come with
the configuration."""


def other_daemons(plan: DaemonPlan, folder: Path, *, starts: bool) -> UserDaemons:
    """
    Raises:
        ConfigError: ``hpc.user_map`` names a user that this machine does not have, or root.
    """
    hpc = plan.settings.hpc
    _check(hpc)
    agent = hpc.agent_command or (sys.executable, "-m", "hpc_agent")
    names = (*_ENVIRONMENT, *backends.choose(hpc).command_variables)
    environ = {name: os.environ[name] for name in names if name in os.environ}
    return UserDaemons(
        folder,
        lambda share: {**_document(plan, share), "environment": environ},
        lambda user: [*command(hpc.user_command, user), *agent, "daemon", "--for-user", user],
        environ,
        SYSTEM,
        starts=starts,
        by_clearml_user=plan.flags.use_owner_token,
    )


def _check(hpc: HpcSettings) -> None:
    for clearml_user, linux_user in hpc.user_map.items():
        try:
            found = pwd.getpwnam(linux_user)
        except KeyError:
            raise ConfigError(
                f"hpc.user_map maps {clearml_user} to {linux_user!r}, who is not a user of this machine"
            ) from None
        if found.pw_uid == 0:
            raise ConfigError(f"hpc.user_map maps {clearml_user} to {linux_user}, who is root: no task may run as root")


def _document(plan: DaemonPlan, share: UserShare) -> dict[str, Any]:
    """What the daemon of a share gets on stdin."""
    settings, configuration = plan.settings, plan.configuration
    base = settings.agent.worker_id or settings.agent.name
    changes: dict[str, object] = {
        "hpc.user_map": {},
        "hpc.template_dirs": [str(path.expanduser().absolute()) for path in settings.hpc.template_dirs],
        "hpc.notify": get(configuration.tree, "hpc.notify") or {},
        # Of this daemon, where it runs with the configuration of a job.
        "api.login_token": "",
        "agent.worker_id": "",
        "agent.worker_name": f"{base}.{share.name}",
    }
    if share.only is not None:
        changes |= {"api.credentials": {}, "api.auth_token": plan.client.owners.token(share.only).reveal()}
    tree = resolved_tree(configuration, changes)
    given = plan.flags.from_anywhere().given()
    return {
        "configuration": _own_folders(tree, settings.hpc),
        "flags": {name: value for name, value in given.items() if name != "use_owner_token"},
        "root": _root(settings.hpc, share),
        "users": dict(settings.hpc.user_map),
        "only": share.only,
    }


def _root(hpc: HpcSettings, share: UserShare) -> str:
    """Of the shares of one Linux user each has a folder of its own: two daemons of one root take turns."""
    root = hpc.user_root.replace("{user}", share.linux_user)
    return root if share.only is None else f"{root}/{share.only}"


def _own_folders(tree: Tree, hpc: HpcSettings) -> Tree:
    """Run directories are the user's own; so are other folders, unless the site named a place outside of ``hpc.root``,
    which users then share."""
    remove(tree, "hpc.runs_dir")
    named = {
        "hpc.cache_dir": hpc.cache_dir,
        "hpc.scratch_dir": hpc.scratch_dir,
        "hpc.container.images_dir": hpc.container.images_dir,
    }
    for key, folder in named.items():
        if folder is None or hpc.root.absolute() in folder.expanduser().absolute().parents:
            remove(tree, key)
    return tree


def serve(shared: Shared, linux_user: str) -> None:
    """Serve a share of the tasks until stdin closes.

    Raises:
        InputError: this process is another user's, or stdin has no document.
    """
    account = pwd.getpwuid(os.getuid())
    if account.pw_name != linux_user:
        raise InputError(
            f"--for-user {linux_user} runs as {user_name()}: the command of hpc.user_command has to change the user"
        )
    try:
        document: Mapping[str, Any] = json.loads(sys.stdin.readline())
    except ValueError:
        raise InputError("--for-user is for daemons that another one starts, with a document on stdin") from None
    _become(account, document["environment"])
    root = Path(document["root"]).expanduser()
    shared.config_file = _write_configuration(document["configuration"], root)
    flags = DaemonFlags.recorded({**document["flags"], "once": document["once"]})
    if not document["once"]:
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    start(shared, flags, SharedUsers(UserMap(document["users"]), UserShare(linux_user, document["only"])))


def _become(account: pwd.struct_passwd, environment: Mapping[str, str]) -> None:
    """The variables of a login: what changes the user may leave the caller's, or none of them."""
    for name in list(os.environ):
        if is_setting(name) or name in ("CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE", "TMPDIR", "SUDO_COMMAND"):
            del os.environ[name]
    os.environ |= {**environment, "HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    os.chdir("/")


def _write_configuration(tree: Tree, root: Path) -> Path:
    put(tree, "hpc.root", str(root))
    path = ensure_directory(root / "daemons", mode=0o700) / "served.conf"
    write_atomic(path, json.dumps(tree, indent=1, sort_keys=True).encode(), mode=0o600)
    return path


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
