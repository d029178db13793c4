"""The network's door: what strangers, forgers, members of the group and stolen jobs send to the server."""

from __future__ import annotations

import base64
import hmac
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import jwt
import requests

from attacks.case import Case
from attacks.http_world import FILE_MIB, STORAGE_MIB, TIMEOUT, Headers, Keys, Server, running

DOOR = "http"

_running: list[Server] = []


@contextmanager
def world() -> Iterator[None]:
    """The server that all cases attack."""
    with running() as server:
        _running.append(server)
        try:
            yield
        finally:
            _running.pop()


def _case(name: str, attempt: Callable[[Server], str]) -> Case:
    return Case(name, lambda _: attempt(_running[-1]))


def _admitted(answer: requests.Response) -> str:
    if answer.status_code == 303 and answer.headers.get("Location", "").startswith("/login"):
        return ""
    return f"HTTP {answer.status_code}: {answer.text[:200]}" if answer.status_code < 400 else ""


# Strangers


def _stranger(method: str, path: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        filled = path.replace("TASK", server.task)
        return _admitted(server.send(method, filled))

    return attempt


_PATHS = (
    "/",
    "/projects/*/experiments/TASK/output/log",
    "/tasks/TASK/console/download",
    "/actions/delete?tasks=TASK",
    "/projects/create",
    "/files/alice/file",
    "/tasks.get_all",
    "/v2.31/tasks.get_by_id?task=TASK",
    "/auth.login",
    "/users.get_all",
    "/server.info",
    "/auth.create_user?name=x",
    "/auth.get_credentials",
    "/tasks.delete?task=TASK&force=true",
    "/tasks.get_all?Authorization=Bearer%20x",
)
STRANGERS = [
    _case(f"stranger: {method} {path}", _stranger(method, path))
    for path in _PATHS
    for method in ("GET", "POST", "DELETE", "HEAD")
    if method in ("GET", "POST") or path in ("/", "/files/alice/file", "/tasks.get_all")
]


# Forged and misused credentials


def _claims(server: Server) -> dict[str, Any]:
    return dict(jwt.decode(server.admin["Authorization"].split()[1], options={"verify_signature": False}))


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _unsigned(server: Server, head: bytes) -> str:
    payload = server.admin["Authorization"].split(".")[1]
    return f"{_part(head)}.{payload}."


def _signed(server: Server, key: str, algorithm: str = "HS256", **head: str) -> str:
    """A token of an administrator's, signed with a key of our choice."""
    header = json.dumps({"alg": algorithm, "typ": "JWT", **head}).encode()
    text = f"{_part(header)}.{_part(json.dumps(_claims(server)).encode())}"
    digest = {"HS256": "sha256", "HS384": "sha384"}[algorithm]
    return f"{text}.{_part(hmac.digest(key.encode(), text.encode(), digest))}"


def _changed(server: Server, **claims: Any) -> str:
    """A good token with other claims and the old signature."""
    head, _, signature = server.admin["Authorization"].split()[1].split(".")
    payload = _part(json.dumps({**_claims(server), **claims}).encode())
    return f"{head}.{payload}.{signature}"


_TOKENS: dict[str, Callable[[Server], str]] = {
    "alg none": lambda s: _unsigned(s, b'{"alg":"none","typ":"JWT"}'),
    "alg None": lambda s: _unsigned(s, b'{"alg":"None","typ":"JWT"}'),
    "no alg": lambda s: _unsigned(s, b'{"typ":"JWT"}'),
    "empty key": lambda s: _signed(s, ""),
    "access key as key": lambda s: _signed(s, s.admin_keys.access),
    "secret key as key": lambda s: _signed(s, s.admin_keys.secret),
    "a member's secret as key": lambda s: _signed(s, s.mallory_keys.secret),
    "HS384": lambda s: _signed(s, s.admin_keys.secret, "HS384"),
    "kid is a path": lambda s: _signed(s, "", kid="/dev/null"),
    "jku": lambda s: _signed(s, "k", jku="http://127.0.0.1:1/keys"),
    "signature removed": lambda s: s.admin["Authorization"].split()[1].rpartition(".")[0] + ".",
    "later end": lambda s: _changed(s, exp=2**40),
    "another user": lambda s: _changed(s, identity={"user": "x", "role": "admin"}),
    "another key": lambda s: _changed(s, credential=s.mallory_keys.access),
    "no token": lambda s: "",
    "dots": lambda s: "..",
    "NUL": lambda s: "\0",
    "very long": lambda s: "a" * 40_000,
}


def _forged(make: Callable[[Server], str]) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        head = f"GET /tasks.get_all HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {make(server)}\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head.encode())
            status = connection.recv(4096).split(b"\r\n")[0].decode()
        return status if " 200 " in status or " 5" in status else ""

    return attempt


FORGED = [_case(f"token: {name}", _forged(make)) for name, make in _TOKENS.items()]

_SCHEMES: dict[str, Callable[[Server], Headers]] = {
    "Basic on a changing call": lambda s: {"Authorization": _basic(s.admin_keys)},
    "cookie": lambda s: {"Cookie": s.admin["Authorization"].replace("Bearer ", "token=")},
    "token in X-Auth": lambda s: {"X-Auth-Token": s.admin["Authorization"].split()[1]},
    "Digest": lambda s: {"Authorization": s.admin["Authorization"].replace("Bearer", "Digest")},
    "Basic with a token": lambda s: {"Authorization": s.admin["Authorization"].replace("Bearer", "Basic")},
    "wrong secret": lambda s: {"Authorization": _basic(Keys(s.admin_keys.access, "x"))},
    "secret of another": lambda s: {"Authorization": _basic(Keys(s.admin_keys.access, s.mallory_keys.secret))},
    "empty secret": lambda s: {"Authorization": _basic(Keys(s.admin_keys.access, ""))},
    "impersonation alone": lambda s: {"X-ClearML-Impersonate-As": "x"},
}


def _basic(keys: Keys) -> str:
    return "Basic " + base64.b64encode(f"{keys.access}:{keys.secret}".encode()).decode()


def _with(headers: Callable[[Server], Headers], action: str) -> Callable[[Server], str]:
    return lambda server: _admitted(server.call(action, {"name": "new", "type": "training"}, headers(server)))


MISUSED = [_case(f"credentials: {name}", _with(headers, "tasks.create")) for name, headers in _SCHEMES.items()]


def _token_of_seconds(server: Server) -> str:
    """A token that renews itself goes on no longer than it was given out for."""
    token = server.login(server.mallory_keys, 2)
    renewed = server.call("auth.login", {"expiration_sec": 10**9}, token).json()["data"]["token"]
    life = jwt.decode(renewed, options={"verify_signature": False})["exp"] - time.time()
    return f"renewed for {life:.0f} s" if life > 2 else ""


def _token_of_a_year(server: Server) -> str:
    token = server.login(server.mallory_keys, 10**9)["Authorization"].split()[1]
    days = (jwt.decode(token, options={"verify_signature": False})["exp"] - time.time()) / 86400
    return f"valid for {days:.0f} days" if days > 31 else ""


def _revoked(server: Server) -> str:
    keys = server.member("leaver")
    token = server.login(keys)
    server.must("auth.revoke_credentials", {"access_key": keys.access}, server.admin)
    return _admitted(server.call("tasks.get_all", {}, token))


def _ended_job(action: str, fields: dict[str, Any]) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        task = server.new_task(server.alice)
        job = server.login(server.job_keys(task))
        server.must("tasks.failed", {"task": task, "force": True}, server.alice)
        return _admitted(server.call(action, {"task": task, **fields}, job))

    return attempt


LIFETIMES = [
    _case("token: of two seconds, renewed", _token_of_seconds),
    _case("token: asked for years", _token_of_a_year),
    _case("key: revoked, with a token in hand", _revoked),
    _case("job: edits its task after its end", _ended_job("tasks.edit", {"comment": "x", "force": True})),
    _case("job: makes a task after its end", _ended_job("tasks.create", {"name": "new", "type": "training"})),
    _case("job: starts its task after its end", _ended_job("tasks.started", {"force": True})),
]


# Members and jobs, at what is another's


def _fields(server: Server, **more: Any) -> dict[str, Any]:
    named = {"task": server.task, "model": server.model, "project": server.project, "queue": server.queue}
    return {**named, "worker": "alice's", "force": True, **more}


_CHANGES: dict[str, dict[str, Any]] = {
    "tasks.edit": {"comment": "x"},
    "tasks.update": {"comment": "x"},
    "tasks.delete": {},
    "tasks.reset": {},
    "tasks.stop": {},
    "tasks.stopped": {},
    "tasks.started": {},
    "tasks.failed": {},
    "tasks.dequeue": {},
    "tasks.publish": {},
    "tasks.set_requirements": {"requirements": {"pip": "evil"}},
    "tasks.edit_hyper_params": {"hyperparams": [{"section": "a", "name": "b", "value": "c"}]},
    "tasks.add_or_update_artifacts": {"artifacts": [{"key": "k", "uri": "file:///etc/passwd"}]},
    "tasks.archive": {"tasks": ["TASK"]},
    "events.add": {"type": "log", "msg": "forged"},
    "events.delete_for_task": {},
    "models.edit": {"uri": "evil", "task": None},
    "models.delete": {},
    "projects.update": {"description": "x"},
    "projects.delete": {},
    "queues.update": {"tags": ["x"]},
    "queues.delete": {},
    "queues.get_next_task": {},
    "queues.remove_task": {},
    "queues.move_task_to_front": {},
    "workers.unregister": {},
    "auth.create_task_credentials": {},
    "auth.create_user": {"name": "x", "role": "admin"},
}


def _change(who: str, action: str, more: dict[str, Any]) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        fields = _fields(server, **more)
        if "tasks" in fields:
            fields["tasks"] = [server.task]
        return _admitted(server.call(action, fields, getattr(server, who)))

    return attempt


ROLES = [
    _case(f"{words}: {action}", _change(who, action, more))
    for who, words in (("mallory", "member"), ("stolen", "stolen job"))
    for action, more in _CHANGES.items()
]


def _batch_with_a_foreign_event(server: Server) -> str:
    own = server.new_task(server.mallory)
    lines = [{"type": "log", "task": task, "msg": "x"} for task in (own, server.task)]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return _admitted(server.call("events.add_batch", body, server.mallory))


def _impersonation(who: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        admin = server.call("users.get_current_user", {}, server.admin).json()["data"]["user"]["id"]
        headers = {**getattr(server, who), "X-ClearML-Impersonate-As": admin}
        return _admitted(server.call("users.get_current_user", {}, headers))

    return attempt


def _keys_of(action: str, who: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        user = server.call("users.get_current_user", {}, server.alice).json()["data"]["user"]["id"]
        return _admitted(server.call(action, {"user": user}, getattr(server, who)))

    return attempt


def _file(who: str, method: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        if method == "POST":
            return _admitted(server.upload("alice/file", b"replaced", getattr(server, who)))
        return _admitted(server.send("DELETE", "/files/alice/file", getattr(server, who)))

    return attempt


def _model_among_outputs(server: Server) -> str:
    """A task of one's own may name any model among its outputs; it stays whose it is."""
    task = server.new_task(server.mallory, models={"output": [{"model": server.model, "name": "m"}]})
    server.call("models.update_for_task", {"task": task, "uri": "evil"}, server.mallory)
    uri = server.must("models.get_by_id", {"model": server.model}, server.alice)["model"]["uri"]
    return f"its address is {uri} now" if uri == "evil" else ""


def _held_upload(server: Server) -> str:
    """Begun while the name was free, complete when it is another's."""
    body = b'--b\r\nContent-Disposition: form-data; name="contested"; filename="f"\r\n\r\nevil\r\n--b--\r\n'
    head = (
        f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: {server.mallory['Authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with server.connect() as connection:
        connection.sendall(head.encode() + body[:-10])
        while not any((server.data / "incoming").iterdir()):
            time.sleep(0.01)
        server.upload("contested", b"hers", server.alice)
        connection.sendall(body[-10:])
        connection.recv(4096)
    found = server.send("GET", "/files/contested", server.alice).content
    return "" if found == b"hers" else f"the file is {found!r} now"


def _unrevocable(server: Server) -> str:
    """The server's own key, known by its label, is not revoked."""
    fields = {"label": "of this server's conf file"}
    return _admitted(server.call("auth.create_credentials", fields, server.login(server.member("careful"))))


OTHERS = [
    _case("member: a model of another among the outputs of a task", _model_among_outputs),
    _case("member: an upload held open until the name is another's", _held_upload),
    _case("member: a key that cannot be revoked", _unrevocable),
    _case("member: a batch with one event of another's task", _batch_with_a_foreign_event),
    _case("member: in the administrator's name", _impersonation("mallory")),
    _case("stolen job: in the administrator's name", _impersonation("stolen")),
    *(
        _case(f"{words}: {action} of another", _keys_of(action, who))
        for who, words in (("mallory", "member"), ("stolen", "stolen job"))
        for action in ("auth.create_credentials", "auth.get_credentials", "auth.revoke_credentials")
    ),
    *(
        _case(f"{words}: {method} another's file", _file(who, method))
        for who, words in (("mallory", "member"), ("stolen", "stolen job"))
        for method in ("POST", "DELETE")
    ),
]


# Names of files

_NAMES = (
    "../planted",
    "../../planted",
    "a/../../planted",
    "..",
    ".",
    "/planted/../../x",
    "..\\planted\0",
    "a/\0/b",
    "x" * 300,
    "a/" * 3000 + "b",
    "a//b",
    "a/./b",
    "%2e%2e/%2e%2e/planted/..",
    "incoming/../../server.db",
    "../server.db",
    "../secrets.json",
)


def _stored_outside(name: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        before = server.outside()
        part = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\nx\r\n--b--\r\n'
        headers = {**server.mallory, "Content-Type": "multipart/form-data; boundary=b"}
        answer = server.send("POST", "/files", headers, data=part.encode())
        new = {str(path) for path in server.outside() - before if not path.name.startswith("server.db")}
        return f"made {new}" if new else f"HTTP {answer.status_code}" if answer.status_code >= 500 else ""

    return attempt


def _read_outside(path: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        with server.connect() as connection:
            head = f"GET /files/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {server.admin['Authorization']}\r\n\r\n"
            connection.sendall(head.encode())
            answer = connection.makefile("rb").read(4096)
        status = answer.split(b"\r\n")[0].decode()
        return status if b" 200 " in answer[:16] or b" 5" in answer[:12] else ""

    return attempt


_READ = (
    "../secrets.json",
    "..%2fsecrets.json",
    "%2e%2e/secrets.json",
    "%2e%2e%2fsecrets.json",
    "..%252fsecrets.json",
    "a/../../secrets.json",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "..%5csecrets.json",
    "%00",
    "../server.db",
    ".",
    "",
)
FILES = [
    *(_case(f"upload as {name[:40]!r} ({len(name)})", _stored_outside(name)) for name in _NAMES),
    *(_case(f"download {path!r}", _read_outside(path)) for path in _READ if path),
]


# What should stop the server, or make it answer 500


def _harmless(action: str, fields: Callable[[Server], Any]) -> Callable[[Server], str]:
    """Answered in time, with no 5xx."""

    def attempt(server: Server) -> str:
        try:
            answer = server.call(action, fields(server), server.mallory)
        except requests.Timeout:
            return f"no answer in {TIMEOUT:.0f} s"
        return f"HTTP {answer.status_code}" if answer.status_code >= 500 else ""

    return attempt


_PATTERNS = (
    "(a+)+$",
    "(a|a)*$",
    "(a*)*b",
    "(.*a){14}$",
    "(a?){60}a{60}",
    "(?=(a+))\\1b",
    "((a{90}){90}){90}",
    "[",
    "x" * 10**6,
)


def _listing(**fields: Any) -> Callable[[Server], str]:
    return _harmless("tasks.get_all", lambda _: fields)


def _pattern(pattern: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        server.new_task(server.mallory, name="a" * 60 + "!")
        return _harmless("tasks.get_all", lambda _: {"name": pattern})(server)

    return attempt


_MANY = [f"value {number}" for number in range(3000)]
_LISTINGS: dict[str, dict[str, Any]] = {
    "3,000 ids": {"id": _MANY},
    "3,000 tags": {"tags": _MANY},
    "3,000 excluded tags": {"tags": [f"-{value}" for value in _MANY]},
    "100,000 ids": {"id": _MANY * 40},
    "3,000 fields to search": {"_any_": {"fields": ["name"] * 3000, "pattern": "x"}},
    "3,000 fields to sort by": {"order_by": ["name"] * 3000},
    "NUL in a field to sort by": {"order_by": ["script.\0"]},
    "quotes in a field to sort by": {"order_by": ['script."a".$[#-1]']},
    "a field of 500 parts": {"only_fields": ["script" + ".a" * 500]},
    "3,000 filters": {f"hyperparams.{number}": "x" for number in range(3000)},
    "page 10^30": {"page": 10**30},
    "page size 10^30": {"page_size": 10**30},
    "SQL in a filter": {"status": ["'; DROP TABLE tasks; --"]},
    "SQL in a field": {"order_by": ["name; DROP TABLE tasks"]},
}


def _nested(depth: int) -> Callable[[Server], Any]:
    return lambda server: (
        b'{"force":true,"task":"%s","runtime":' % server.new_task(server.mallory).encode()
        + b'{"a":' * depth
        + b"1"
        + b"}" * depth
        + b"}"
    )


_BODIES: dict[str, Callable[[Server], Any]] = {
    **{f"nested {depth} deep": _nested(depth) for depth in (300, 980, 988, 990, 992, 1000, 100_000)},
    "no JSON": lambda _: b"\xff\xfe{",
    "a list": lambda _: b"[]",
    "number of 5,000 digits": lambda _: b'{"task":' + b"9" * 5000 + b"}",
}
LOAD = [
    *(_case(f"pattern {pattern[:30]!r}", _pattern(pattern)) for pattern in _PATTERNS),
    *(_case(f"list: {name}", _listing(**fields)) for name, fields in _LISTINGS.items()),
    *(_case(f"body: {name}", _harmless("tasks.edit", fields)) for name, fields in _BODIES.items()),
]


def _console(server: Server) -> str:
    """A page of a task whose console came a line a chunk."""
    task = server.new_task(server.mallory)
    line = b'{"type":"log","task":"%s","msg":"x","timestamp":1}\n' % task.encode()
    server.must("events.add_batch", line * 60_000, server.mallory)
    try:
        answer = server.send("GET", f"/projects/*/experiments/{task}", server.mallory)
    except requests.Timeout:
        return f"no page in {TIMEOUT:.0f} s"
    return f"a page of {len(answer.content)} bytes" if len(answer.content) > 5_000_000 else ""


def _idle(sent: bytes) -> Callable[[Server], str]:
    """700 connections that send no complete request."""

    def attempt(server: Server) -> str:
        with ExitStack() as idle:
            for _ in range(700):
                idle.enter_context(server.connect()).sendall(sent)
            return "" if server.is_alive() else "other clients are not answered"

    return attempt


def _chopped(server: Server) -> str:
    """Ten strangers who send bodies in chunks of one byte."""

    def chop() -> None:
        with suppress(OSError), server.connect() as connection:
            connection.sendall(b"POST /tasks.get_all HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(100):
                connection.sendall(b"1\r\na\r\n" * 20_000)

    strangers = [threading.Thread(target=chop) for _ in range(10)]
    for stranger in strangers:
        stranger.start()
    alive = server.is_alive()
    for stranger in strangers:
        stranger.join()
    return "" if alive else "other clients are not answered"


def _too_large(server: Server) -> str:
    return _admitted(server.upload("large", b"x" * (FILE_MIB * 1024 * 1024 + 1), server.mallory))


def _too_many(server: Server) -> str:
    name = "filling"
    stored = [server.upload(f"{name}/{n}", b"x" * 1024 * 1000, server.mallory) for n in range(STORAGE_MIB + 2)]
    for number in range(len(stored)):
        server.send("DELETE", f"/files/{name}/{number}", server.mallory)
    return "" if stored[-1].status_code == 507 else _admitted(stored[-1]) or f"HTTP {stored[-1].status_code}"


def _compressed(path: str) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        headers = {**server.mallory, "Content-Encoding": "gzip"}
        return _admitted(server.send("POST", path, headers, data=b"\x1f\x8b"))

    return attempt


RESOURCES = [
    _case("console of 60,000 chunks", _console),
    _case("idle: nothing sent", _idle(b"")),
    _case("idle: half a head", _idle(b"GET / HTTP/1.1\r\nX-a:")),
    _case("idle: half a body", _idle(b"POST /tasks.get_all HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")),
    _case("bodies in chunks of one byte", _chopped),
    _case("upload: larger than a file may be", _too_large),
    _case("upload: more than the storage", _too_many),
    _case("compressed call", _compressed("/tasks.get_all")),
    _case("compressed upload", _compressed("/files")),
]


# What others' browsers are shown

_EVIL = "<script>alert(1)</script>"
_OWN_SCRIPTS = re.compile(r'<script src="/static/[^"<>]+"( defer)?></script>')
_TABS = ("execution", "configuration", "artifacts", "info", "output/log", "plots", "scalars", "debug-images", "job")


def _shown(**fields: Any) -> Callable[[Server], str]:
    def attempt(server: Server) -> str:
        task = server.new_task(server.mallory, **fields)
        server.must("events.add", {"type": "log", "task": task, "msg": _EVIL}, server.mallory)
        of_task = [f"/projects/*/experiments/{task}/{tab}" for tab in _TABS]
        for path in ("/", "/projects/*/tasks", f"/compare?ids={task},{server.task}", *of_task):
            answer = server.send("GET", path, server.admin)
            answer.raise_for_status()
            if "<script" in _OWN_SCRIPTS.sub("", answer.text):
                return f"a script in {path}"
            if not _allows_only_own_scripts(answer):
                return f"scripts are allowed in {path}"
        return ""

    return attempt


def _allows_only_own_scripts(answer: requests.Response) -> bool:
    policy = answer.headers.get("Content-Security-Policy", "")
    directives = [directive.split() for directive in policy.split(";")]
    return ["default-src", "'none'"] in directives and ["script-src", "'self'"] in directives


def _guessable(method: str, path: str) -> Callable[[Server], str]:
    """Errors repeat names: a browser must not take them for a page."""

    def attempt(server: Server) -> str:
        answer = server.send(method, path, server.admin)
        return "" if answer.headers.get("X-Content-Type-Options") == "nosniff" else f"HTTP {answer.status_code}"

    return attempt


def _uploaded_page(server: Server) -> str:
    server.send("POST", "/files", server.mallory, files={"p.html": ("p.html", io.BytesIO(_EVIL.encode()))})
    policy = server.send("GET", "/files/p.html", server.alice).headers.get("Content-Security-Policy", "")
    return "" if policy.startswith("sandbox;") else "a page of this origin"


BROWSERS = [
    *(
        _case(f"script in {next(iter(fields))}", _shown(**fields))
        for fields in (
            {"name": _EVIL},
            {"comment": _EVIL},
            {"tags": [_EVIL]},
            {"script": {"entry_point": _EVIL, "diff": _EVIL}},
            {"hyperparams": {_EVIL: {_EVIL: {"value": _EVIL}}}},
            {"container": {"image": _EVIL}},
        )
    ),
    *(
        _case(f"type guessed: {method} {path}", _guessable(method, path))
        for method, path in (
            ("GET", f"/{_EVIL}"),
            ("GET", f"/files/{_EVIL}"),
            ("PATCH", "/"),
            ("GET", "/projects/a/b/c"),
            ("GET", "/?page=x"),
            ("GET", "/no.such"),
        )
    ),
    _case("a page among the files", _uploaded_page),
]

CASES: tuple[Case, ...] = (
    *STRANGERS,
    *FORGED,
    *MISUSED,
    *LIFETIMES,
    *ROLES,
    *OTHERS,
    *FILES,
    *LOAD,
    *RESOURCES,
    *BROWSERS,
)
