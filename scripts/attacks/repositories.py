"""Repositories that a task names: they run no program here, see no password that is not theirs, and hold up no other
task."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attacks.case import Case
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import HpcAgentError
from hpc_agent.redact import Secret
from hpc_agent.sources import layout
from hpc_agent.sources.source_store import SourceStore

DOOR = "repositories"

_GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
_PASSWORD = "xS3CRETx"
_NO_NAME = GitSettings(user="me", password=Secret(_PASSWORD))
_OTHER = GitSettings(user="me", password=Secret(_PASSWORD), host="git.lab.org")


class _Host:
    """A git host of the attacker's that asks for a password."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                host.heard.append(base64.b64decode(given.removeprefix("Basic ")).decode(errors="replace"))
                self.send_response(302 if self.path.startswith("/moved") else 401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Location", f"http://{host.address}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


_host: _Host | None = None


@contextmanager
def world() -> Iterator[None]:
    """The attacker's host."""
    global _host
    _host = _Host()
    thread = threading.Thread(target=_host.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxies = {name: value for name, value in os.environ.items() if name.lower() == "no_proxy"}
    os.environ.update(no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
    try:
        yield
    finally:
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
        os.environ.update(proxies)
        _host.server.shutdown()
        _host.server.server_close()
        thread.join()
        _host = None


def _repository(folder: Path, name: str = "remote") -> Path:
    root = folder / name
    root.mkdir()
    (root / "run.py").write_text("print(1)\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"]):
        _git(root, *words)
    return root


def _git(root: Path, *words: str) -> None:
    subprocess.run([*_GIT, "-c", "protocol.file.allow=always", *words], cwd=root, check=True, capture_output=True)


def _stage(folder: Path, script: TaskScript, settings: GitSettings) -> str:
    """Fetch and check out as the daemon and the node do; the message to its user."""
    said: list[str] = []
    store = SourceStore(folder / "cache", settings, SYSTEM)
    try:
        layout.check_limits(script)
        staged = store.stage(script, said.append)
        store.requirement_files(script, staged)
        store.checkout(script, staged, folder / "runs", said.append)
    except HpcAgentError as error:
        said.append(str(error))
    return "\n".join(said)


def _runs(fields: Mapping[str, str], folder: Path) -> str:
    """Whether a program of the attacker's ran, or a file was made that is none of the code."""
    filled: dict[str, Any] = {name: value.replace("{folder}", str(folder)) for name, value in fields.items()}
    if "repository" not in filled:
        filled["repository"] = f"file://{_repository(folder)}"
    _stage(folder, TaskScript(**{"entry_point": "run.py", "branch": "main", **filled}), _NO_NAME)
    return "a program ran" if (folder / "ran").exists() or Path("ran").exists() else ""


def _hears(folder: Path, repository: str, settings: GitSettings) -> str:
    """Whether the attacker's host, or the task's author, hears a password of the settings."""
    assert _host is not None
    _host.heard.clear()
    said = _stage(folder, TaskScript(repository.replace("{host}", _host.address), branch="main"), settings)
    if any(_PASSWORD in words for words in _host.heard):
        return "the host heard the password"
    return "the password is in the message" if _PASSWORD in said else ""


def _shows(folder: Path, password: str) -> str:
    """Whether a password in the address is written down or shown."""
    assert _host is not None
    said = _stage(folder, TaskScript(f"http://me:{password}@{_host.address}/x.git", branch="main"), GitSettings())
    written = [
        path for path in (folder / "cache").rglob("*") if path.is_file() and "S3CRET" in path.read_text("latin-1")
    ]
    return "it is shown" if "S3CRET" in said else "it is in the cache" if written else ""


def _sentence(fields: Mapping[str, str], folder: Path) -> str:
    """Whether a value leads to anything but a sentence."""
    given: dict[str, Any] = {"branch": "main", **fields}
    try:
        said = _stage(folder, TaskScript(**given), GitSettings())
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__} reached the daemon"
    return "" if 0 < len(said) < 2000 else f"the message has {len(said)} characters"


def _submodule(folder: Path, address: str, path: str = "lib") -> str:
    root, inner = _repository(folder), _repository(folder, "inner")
    _git(root, "submodule", "add", "--quiet", f"file://{inner}", "lib")
    address = address.replace("{folder}", str(folder)).replace("\\", "\\\\").replace('"', '\\"')
    (root / ".gitmodules").write_text(
        f'[submodule "lib"]\n\tpath = {path}\n\turl = "{address}"\n\tupdate = !touch ran\n'
    )
    _git(root, "commit", "--quiet", "-am", "y")
    said = _stage(folder, TaskScript(f"file://{root}", branch="main", entry_point="run.py"), _NO_NAME)
    if (folder / "ran").exists():
        return "a program ran"
    return "" if "lib will be missing" in said or not address.startswith("git://") else "it was taken"


def _mirror(folder: Path, config: str) -> str:
    """A mirror of the shared cache whose configuration a member of the group has changed."""
    root = _repository(folder)
    script = TaskScript(f"file://{root}", branch="main", entry_point="run.py")
    _stage(folder, script, GitSettings())
    [mirror] = [
        path for path in (folder / "cache" / "vcs").iterdir() if path.is_dir() and path.name.startswith("remote")
    ]
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {folder}/ran\nexit 1\n")
    program.chmod(0o755)
    hooks = mirror / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-update", "pre-auto-gc"):
        (hooks / name).symlink_to(program)
    with (mirror / "config").open("a") as file:
        file.write(
            config.replace("PROGRAM", str(program)).replace("REMOTE", f"file://{root}").replace("HOOKS", str(hooks))
        )
    (root / "new.py").write_text("2\n")
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "-m", "new")
    said = _stage(folder, script, GitSettings())
    if (folder / "ran").exists():
        return "a program ran"
    return (
        "" if (folder / "runs").exists() and "cannot" not in said else f"a broken mirror stops the task: {said[-200:]}"
    )


def _leaves(folder: Path, **fields: str) -> str:
    """Entry points and working folders outside of the code."""
    root = _repository(folder)
    (folder / "outside.py").write_text("print('outside')\n")
    (root / "up").symlink_to("..")
    (root / "out.py").symlink_to(folder / "outside.py")
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "-m", "links")
    filled: dict[str, Any] = {name: value.replace("{folder}", str(folder)) for name, value in fields.items()}
    script = TaskScript(**{"repository": f"file://{root}", "branch": "main", "entry_point": "run.py", **filled})
    store = SourceStore(folder / "cache", GitSettings(), SYSTEM)
    try:
        workspace = store.checkout(script, store.stage(script, print), folder / "runs", print)
    except HpcAgentError:
        return ""
    file = (workspace.cwd / workspace.entry.text).resolve()
    inside = workspace.root.resolve()
    is_git = ".git" in file.relative_to(inside).parts if inside in file.parents else True
    return "the entry is outside of the code" if is_git else ""


_PROGRAMS = (
    *(
        "ext::sh -c 'touch {folder}/ran'",
        "ext::touch {folder}/ran",
        "EXT::touch%20{folder}/ran",
        "fd::17",
        "transport::x",
    ),
    *("--upload-pack=touch {folder}/ran", "-oProxyCommand=touch {folder}/ran", "-u./x", "--exec=touch", "-c core.x=y"),
    *("ssh://-oProxyCommand=touch%20{folder}%2Fran/x", "ssh://git@-oProxyCommand=touch/x", "git+ssh://-oX=y/z"),
    *(
        "-oProxyCommand=touch:x",
        "git@-oProxyCommand=touch:x",
        "ssh+git://-oX/y",
        "file://{folder}/x --upload-pack=touch",
    ),
    *("ftp://127.0.0.1/x", "ftps://127.0.0.1/x", "rsync://127.0.0.1/x", "dict://127.0.0.1/x", "gopher://127.0.0.1/x"),
    *(
        "https://127.0.0.1:9/a\nb",
        "https://127.0.0.1:9/a b",
        "https://127.0.0.1:9/\ttouch",
        "|touch {folder}/ran",
        "$(touch ran)",
    ),
    *("`touch ran`", "; touch ran", "../remote", "remote", "~/x", "git://127.0.0.1:9/x", "GIT://127.0.0.1:9/x"),
)
_NAMES = (
    *(
        "--upload-pack=touch {folder}/ran",
        "-x",
        "--exec=touch",
        "a..b",
        "@{-1}",
        "a^{/x}",
        "a:b",
        "a~1",
        "refs/../x",
        ".hidden",
    ),
    *("x.lock", "a//b", "a\nb", "a b", "\x7f", "/a", "a/", "*", "?", "[a]"),
)
_HOSTS = (
    *("http://{host}/x.git", "http://me@{host}/x.git", "HTTP://{host}/x.git", "http://{host}/moved/x.git"),
    *("http://git.lab.org@{host}/x.git", "http://{host}/git.lab.org/x.git", "http://me:@{host}/x.git", "http://{host}"),
    *("http://{host}/x.git?git.lab.org", "http://{host}#git.lab.org"),
)
_VALUES = (
    *(
        "ssh://127.0.0.1:-1/x",
        "ssh://git@host:99999/x.git",
        "http://[::1/x.git",
        "https://host:port/x.git",
        "ssh://[v1.x]/x",
    ),
    *(
        "http://[:::::]/x",
        "https://\uff0fhost/x",
        "https://ho\u2100st/x",
        "x" * 150_000,
        "https://h/" + "a" * 5000,
        "\ud800",
    ),
    *(
        "a" * 150_000 + "://x",
        "http://" + "@" * 4000,
        "http://" + ":" * 4000,
        "://",
        "http://",
        "ssh://",
        "file://",
        ":",
        "a:",
    ),
    *("https://host/a\0b", "ssh://git@host:group\0/x", "http://%00/x", "http://host:0x50/x", "http://host:\u0661/x"),
)
_SUBMODULES = (
    *(
        "ext::touch {folder}/ran",
        "--upload-pack=touch {folder}/ran",
        "-oProxyCommand=touch:x",
        "ssh://-oProxyCommand=touch/x",
    ),
    *("git://127.0.0.1:9/x", "../../../../etc", "fd::3", "$(touch {folder}/ran)", "ftp://127.0.0.1/x"),
)
_CONFIGS = (
    "[core]\n\tsshCommand = PROGRAM\n\tgitProxy = PROGRAM\n",
    "[core]\n\tfsmonitor = PROGRAM\n",
    "[core]\n\thooksPath = HOOKS\n",
    "[core]\n\talternateRefsCommand = PROGRAM\n\tpager = PROGRAM\n\teditor = PROGRAM\n",
    '[remote "origin"]\n\turl = REMOTE\n\tuploadpack = PROGRAM\n',
    '[remote "REMOTE"]\n\tuploadpack = PROGRAM\n',
    "[credential]\n\thelper = !PROGRAM\n",
    '[url "ext::PROGRAM #"]\n\tinsteadOf = REMOTE\n[protocol "ext"]\n\tallow = always\n',
    '[url "file:///nowhere"]\n\tinsteadOf = REMOTE\n',
    '[extensions]\n\tpartialClone = evil\n[remote "evil"]\n\tpromisor = true\n\turl = REMOTE\n\tuploadpack = PROGRAM\n',
    '[filter "x"]\n\tsmudge = PROGRAM\n\tclean = PROGRAM\n[diff "x"]\n\ttextconv = PROGRAM\n',
    "[gpg]\n\tprogram = PROGRAM\n[transfer]\n\tfsckObjects = false\n[uploadpack]\n\tpackObjectsHook = PROGRAM\n",
    "[include]\n\tpath = /nowhere\n[core]\n\trepositoryformatversion = 99\n",
    "this is not a configuration\n",
)
_ENTRIES = (
    *(
        "../outside.py",
        "../../outside.py",
        "{folder}/outside.py",
        "up/outside.py",
        "out.py",
        ".git/config",
        "x/../../outside.py",
    ),
    *(".git/hooks/../config", "up/../outside.py"),
)
_FOLDERS = ("..", "../..", "{folder}", "up", ".git", "up/..", "x/../..", "up/up")
_OWN = ("xS3CRETx", "a/S3CRET", "a@S3CRET", "S3CRET@x", "S3CRET/x@y", "a%40S3CRET", "a?S3CRET", "a#S3CRET", "a:S3CRET")

CASES: tuple[Case, ...] = (
    *(Case(f"run a program with {address!r}", partial(_runs, {"repository": address})) for address in _PROGRAMS),
    *(
        Case(f"run a program with the {kind} {name!r}", partial(_runs, {kind: name}))
        for kind in ("branch", "tag", "commit")
        for name in _NAMES
    ),
    *(
        Case(f"hear the password at {address}", partial(_hears, repository=address, settings=_NO_NAME))
        for address in _HOSTS
    ),
    *(
        Case(f"hear another host's password at {address}", partial(_hears, repository=address, settings=_OTHER))
        for address in _HOSTS
    ),
    *(Case(f"read the task's own password {word}", partial(_shows, password=word)) for word in _OWN),
    *(
        Case(f"stop the daemon with {value[:40]!r}, {len(value)}", partial(_sentence, {"repository": value}))
        for value in _VALUES
    ),
    *(
        Case(f"stop the daemon with a {field} of {what}", partial(_sentence, {field: value}))
        for field in ("branch", "entry_point", "working_dir", "binary")
        for what, value in (("150,000 characters", "a" * 150_000), ("NUL", "a\0b"), ("half a character", "\udc00"))
    ),
    *(Case(f"a submodule at {address}", partial(_submodule, address=address)) for address in _SUBMODULES),
    *(
        Case(f"a mirror with {config.split()[0]} {number}", partial(_mirror, config=config))
        for number, config in enumerate(_CONFIGS)
    ),
    *(Case(f"run {entry}", partial(_leaves, entry_point=entry)) for entry in _ENTRIES),
    *(Case(f"run in {folder}", partial(_leaves, working_dir=folder)) for folder in _FOLDERS),
)
