"""Answers of a hostile ClearML server: ids that are paths or hold line breaks, endless bodies, other types."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attacks.case import Case
from attacks.hostile_server import Answer, HostileServer, data, serving, token
from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId, WorkerId
from hpc_agent.errors import HpcAgentError
from hpc_agent.retry import ONCE, Budget
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.telemetry.shipper import ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool

DOOR = "answers of the ClearML server"

TASK, QUEUE, WORKER = TaskId("a" * 32), QueueId("b" * 32), WorkerId("node:1")
_server = HostileServer()
_DECEIVED = "http://127.0.0.1:1"
_MIB = 1 << 20


@contextmanager
def world() -> Iterator[None]:
    """The hostile server, on loopback."""
    with serving(_server):
        yield


# ---------------------------------------------------------------- ids

IDS = (
    "..",
    "../zz",
    "/etc/cron.d/x",
    "~/EVIL",
    "a/b",
    ".hidden",
    "-rf",
    "--wrap=id",
    "w\n#SBATCH --partition=urgent\ntouch ~/PWN\n",
    "a\rb",
    "a\u2028b",
    "a\0b",
    "a b",
    "$(id)",
    "`id`",
    "a;id",
    "ä" * 8,
    "a" * 65,
    "a" * 100_000,
    "",
)
OTHER_IDS: tuple[object, ...] = (7, True, ["a"], {"key": "a"}, 1e999)


def _made_of(found: str, folder: Path) -> str:
    """What an id that was taken becomes."""
    directory = RunsFolder(folder / "runs").of(Attempt(TaskId(found), AttemptId("0000000a")))
    return f"taken: {directory.path} and job {directory.attempt.job_name}"[:300]


def _task(identifier: object, folder: Path) -> str:
    _server.say(tasks__get_by_id=data({"task": {"id": identifier, "name": "t", "status": "queued"}}))
    return _refused(lambda: _server.client().tasks.get(TASK).id, folder)


def _entry(identifier: object, folder: Path) -> str:
    """A bad entry is passed over; the good one behind it is served."""
    entries = [{"task": identifier, "added": "x"}, {"task": TASK, "added": "y"}]
    _server.say(queues__get_all=data({"queues": [{"id": QUEUE, "name": "q", "entries": entries}]}))
    queues = _server.client().queues.get_many([QUEUE])
    found = [entry.task for queue in queues for entry in queue.entries]
    if found == [TASK]:
        return ""
    return _made_of(str(found[0]), folder) if found else "one bad entry hides the others"


def _named(identifier: object, folder: Path) -> str:
    _server.say(tasks__get_all=data({"tasks": [{"id": identifier, "name": "mine"}]}))
    return _refused(lambda: _server.client().tasks.resolve("mine"), folder)


def _cloned(identifier: object, folder: Path) -> str:
    _server.say(tasks__clone=data({"id": identifier}))
    return _refused(lambda: _server.client().tasks.clone(TASK), folder)


def _queue(identifier: object, folder: Path) -> str:
    _server.say(queues__get_all=data({"queues": [{"id": identifier, "name": "mine"}]}))
    return _refused(lambda: _server.client().queues.resolve("mine"), folder)


def _refused(call: Callable[[], str], folder: Path) -> str:
    try:
        return _made_of(call(), folder)
    except HpcAgentError as error:
        return "the refusal is longer than a page" if len(str(error)) > 2000 else ""


ID_DOORS = {"task": _task, "queue entry": _entry, "task by name": _named, "clone": _cloned, "queue by name": _queue}


# ---------------------------------------------------------------- sizes


def _zeros(pack: Callable[[], Any], mib: int) -> Callable[[], Iterable[bytes]]:
    """So many MiB of zeros, as packed as they get."""

    def pieces() -> Iterator[bytes]:
        packer = pack()
        yield b""
        for _ in range(mib):
            yield packer.compress(bytes(_MIB))
        yield packer.flush()

    return pieces


def _plain(mib: int) -> Callable[[], Iterable[bytes]]:
    return lambda: (bytes(_MIB) for _ in range(mib))


_GZIP = partial(zlib.compressobj, 1, zlib.DEFLATED, 31)
_DEFLATE = partial(zlib.compressobj, 1)
_HUGE = 192

SIZES: dict[str, Answer] = {
    "gzip of zeros": Answer(_zeros(_GZIP, _HUGE), headers={"Content-Encoding": "gzip"}),
    "deflate of zeros": Answer(_zeros(_DEFLATE, _HUGE), headers={"Content-Encoding": "deflate"}),
    "plain zeros": Answer(_plain(_HUGE)),
    "plain zeros as an error": Answer(_plain(_HUGE), status=400),
    "gzip of zeros as an error": Answer(_zeros(_GZIP, _HUGE), status=500, headers={"Content-Encoding": "gzip"}),
    "gzip that is none": Answer(b"no gzip", headers={"Content-Encoding": "gzip"}),
    "gzip that breaks off": Answer(gzip.compress(b"{}" * 9999)[:50], headers={"Content-Encoding": "gzip"}),
    "millions of empty lists": Answer(b'{"meta": {}, "data": {"tasks": [' + b"[]," * 5_000_000 + b"0]}}"),
    "nested lists": Answer(b"[" * 500_000),
    "nested objects in an envelope": Answer(
        b'{"meta": {}, "data": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}"
    ),
    "a number of 100,000 digits": Answer(b'{"meta": {}, "data": {"tasks": ' + b"9" * 100_000 + b"}}"),
    "no JSON": Answer(b"\xff\xfe\x00"),
    "an empty body": Answer(b""),
    "a page of HTML": Answer(b"<html>" * 1000),
    "a refusal of a megabyte": Answer(
        json.dumps({"meta": {"result_code": 400, "result_msg": "x" * _MIB}, "data": {}}).encode(), 400
    ),
}


def _size(endpoint: str, answer: Answer, folder: Path) -> str:
    _server.say(**{endpoint.replace(".", "__"): answer})
    try:
        found = _server.client().session.call(endpoint)
    except HpcAgentError as error:
        return f"an error of {len(str(error)):,} characters" if len(str(error)) > 10_000 else ""
    return f"taken: {str(found)[:100]}"


def _uploaded(answer: Answer, folder: Path) -> str:
    # The file server's own address has no endpoint.
    _server.say(**{"": answer})
    file = folder / "a.txt"
    file.write_text("a", encoding="utf-8")
    try:
        _server.client().files.upload(file, "p/a.txt")
    except HpcAgentError as error:
        return f"an error of {len(str(error)):,} characters" if len(str(error)) > 10_000 else ""
    return "" if answer.status == 200 and isinstance(answer.body, bytes) else "read to its end"


# ---------------------------------------------------------------- drips

_PATIENCE = 0.3
_LONG = 10.0


def _drip(first: bytes, piece: bytes) -> Callable[[], Iterable[bytes]]:
    """A piece now and then, for much longer than a client should wait."""

    def pieces() -> Iterator[bytes]:
        yield first
        for _ in range(int(3 * _LONG / 0.1)):
            SYSTEM.sleep(0.1)
            yield piece

    return pieces


_HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS: dict[str, Callable[[], Iterable[bytes]]] = {
    "the status line": _drip(b"HTTP/1.1 200 ", b"K"),
    "header after header": _drip(_HEAD, b"X: y\r\n"),
    "one header": _drip(_HEAD + b"X: ", b"y"),
    "interim answers": _drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body of known length": _drip(_HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "a body without end": _drip(_HEAD + b"\r\n", b" "),
    "chunks": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "the length of a chunk": _drip(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "an error's body": _drip(b"HTTP/1.1 503 Away\r\n\r\n", b" "),
}


def _dripped(endpoint: str, pieces: Callable[[], Iterable[bytes]], folder: Path) -> str:
    _server.say(**{endpoint.replace(".", "__"): Answer(b"", raw=pieces)})
    began = SYSTEM.monotonic()
    try:
        _server.client(_PATIENCE).session.call("tasks.get_all")
    except HpcAgentError:
        waited = SYSTEM.monotonic() - began
        return f"waited for {waited:.0f} s" if waited > _LONG else ""
    return "taken for an answer"


# ---------------------------------------------------------------- types

VALUES: tuple[object, ...] = (None, 7, -1, 1e300, "text", [], ["x"], [None], [[]], {}, {"a": 1}, True)
"""Values for a place where something else is expected."""

READERS: dict[str, tuple[str, tuple[str, ...], Callable[[Client, Path], object]]] = {
    "tasks.get_by_id": (
        "task",
        ("id", "name", "status", "script", "execution", "container", "hyperparams", "runtime", "tags"),
        lambda client, _: client.tasks.get(TASK),
    ),
    "tasks.get_all": (
        "tasks",
        ("id", "status", "status_message", "runtime", "last_worker", "last_worker_report"),
        lambda client, _: [
            (seen.abort_requested, seen.run_token, seen.abort_callback_seconds)
            for seen in client.tasks.get_states([TASK]).values()
        ],
    ),
    "queues.get_all": (
        "queues",
        ("id", "name", "entries", "tags"),
        lambda client, _: (client.queues.get_many([QUEUE]), client.queues.queue_of(TASK)),
    ),
    "events.get_task_log": (
        "events",
        ("timestamp", "worker", "msg"),
        lambda client, _: (client.events.latest(TASK, budget=ONCE), client.events.console_after(TASK, 0)),
    ),
    "workers.get_runtime_properties": (
        "runtime_properties",
        ("key", "value"),
        lambda client, _: client.workers.runtime_properties(WORKER),
    ),
}
_SANE: dict[str, object] = {"id": TASK, "name": "n", "status": "queued", "timestamp": 1, "worker": WORKER, "key": "k"}


def _reads(endpoint: str, answer: object, folder: Path) -> str:
    """Anything but an answer that is used, or an error of ours, stops the caller."""
    name, _, read = READERS[endpoint]
    _server.say(**{endpoint.replace(".", "__"): data({name: answer})})
    return _stopped(lambda: read(_server.client(), folder))


def _field(endpoint: str, field: str, folder: Path) -> str:
    """Each value in that field of an object that is right otherwise."""
    name = READERS[endpoint][0]
    for value in VALUES:
        row = {**_SANE, field: value}
        found = _reads(endpoint, row if name == "task" else [row], folder)
        if found:
            return f"{value!r}: {found}"
    return ""


def _stopped(call: Callable[[], object]) -> str:
    try:
        call()
    except HpcAgentError:
        return ""
    except Exception as error:  # noqa: BLE001 - what is looked for
        return f"{type(error).__name__} stops the caller: {error}"[:300]
    return ""


def _claims(claims: dict[str, object], folder: Path) -> str:
    _server.say(auth__login=data({"token": token(**claims)}), tasks__get_all=data({"tasks": []}))
    client = _server.client()

    def use() -> None:
        client.session.call("tasks.get_all")
        assert client.session.server_version is not None
        client.owners.check()

    return _stopped(use)


CLAIMS: dict[str, dict[str, object]] = {
    "an end of 400 digits": {"exp": 10**400},
    "an end that is not a number": {"exp": float("nan")},
    "an end without end": {"exp": float("inf"), "iat": float("-inf")},
    "an end as text": {"exp": "tomorrow", "iat": []},
    "a version of a million parts": {"api_version": ".".join("1" * 100_000)},
    "a version of 5,000 digits": {"api_version": "9" * 5_000},
    "a version that is a list": {"api_version": [2, 31]},
    "an identity that is a text": {"identity": "admin"},
    "an identity that is a list": {"identity": ["admin"]},
}


def _token(value: object, folder: Path) -> str:
    _server.say(auth__login=data({"token": value}), tasks__get_all=data({"tasks": []}))
    return _stopped(lambda: _server.client().session.server_version)


# ---------------------------------------------------------------- texts, redirects, waits


def _half_pairs(folder: Path) -> str:
    """Half of a surrogate pair is not a character: it can be written nowhere."""
    body = b'{"meta": {}, "data": {"task": {"id": "%s", "name": "x\\ud83d", "status": "queued"}}}' % TASK.encode()
    _server.say(tasks__get_by_id=Answer(body))
    task = _server.client().tasks.get(TASK)
    return _stopped(lambda: (folder / "name").write_text(task.name, encoding="utf-8"))


def _redirect(status: int, folder: Path) -> str:
    """The keys go to the server that is configured, and nowhere else."""
    _server.say(tasks__get_all=Answer(b"", status, {"Location": f"{_server.url}/elsewhere/stolen"}))
    found = _stopped(lambda: _server.client().session.call("tasks.get_all"))
    return found or ("followed with our token" if "stolen" in _server.asked else "")


def _wait(seconds: str, folder: Path) -> str:
    answer = Answer(b'{"meta": {"result_msg": "later"}, "data": {}}', 503, {"Retry-After": seconds})
    _server.say(tasks__get_all=answer)
    client = Client(_server.client().session.settings, budget=Budget(0.01, first_pause=0.001))
    return _stopped(lambda: client.session.call("tasks.get_all"))


def _console_numbers(value: object, folder: Path) -> str:
    """Answers to the console's sender about what is stored: it may not lose lines, nor stop."""
    _server.say(events__add_batch=data({"added": value}), events__get_task_log=data({"events": []}))
    spool = Spool(folder / "console.log", folder / "console.offset")
    spool.write(b"line\n")
    shipper = Shipper(spool, ConsoleSource(TASK, WORKER), _server.client().events, SYSTEM)
    return _stopped(lambda: shipper.drain(ONCE))


_TOKENS: tuple[object, ...] = (None, 7, [], "", "a.b", "a.!!!.c", "." * 9)

CASES = (
    *(
        Case(f"{door}: id {number}, {identifier!r:.60}", partial(attempt, identifier))
        for door, attempt in ID_DOORS.items()
        for number, identifier in enumerate((*IDS, *OTHER_IDS))
        if not (identifier == "" and door == "clone")
    ),
    *(Case(f"size: {name}, for a list", partial(_size, "tasks.get_all", answer)) for name, answer in SIZES.items()),
    *(Case(f"size: {name}, for the login", partial(_size, "auth.login", answer)) for name, answer in SIZES.items()),
    *(Case(f"size: {name}, for an upload", partial(_uploaded, answer)) for name, answer in SIZES.items()),
    *(
        Case(f"drip: {name}, from {endpoint}", partial(_dripped, endpoint, pieces))
        for name, pieces in DRIPS.items()
        for endpoint in ("auth.login", "tasks.get_all")
    ),
    *(
        Case(f"type: {endpoint} holds {value!r}", partial(_reads, endpoint, value))
        for endpoint in READERS
        for value in VALUES
    ),
    *(
        Case(f"type: {endpoint}, any value for {name}", partial(_field, endpoint, name))
        for endpoint, (_, names, _) in READERS.items()
        for name in names
    ),
    *(Case(f"token: {name}", partial(_claims, claims)) for name, claims in CLAIMS.items()),
    *(Case(f"token: {value!r}", partial(_token, value)) for value in _TOKENS),
    *(Case(f"type: {value!r} events stored", partial(_console_numbers, value)) for value in VALUES),
    *(Case(f"redirect {status}", partial(_redirect, status)) for status in (301, 302, 303, 307, 308)),
    *(
        Case(f"wait: Retry-After {seconds!r}", partial(_wait, seconds))
        for seconds in ("nan", "inf", "-5", "1e400", "soon", "9" * 400)
    ),
    Case("text: half of a surrogate pair", _half_pairs),
)
