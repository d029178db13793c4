"""The outer shape of the API: login, envelope, inputs, refusals (docs/internals/clearml-protocol.md#envelope)."""

from __future__ import annotations

import base64
import json
import socket
from datetime import datetime, timezone
from typing import Any

import pytest
from clearml_server import ClearmlServer
from http_api import Answered, Api, address_of

from hpc_agent.server.action import RequestBody


def claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def test_login_gives_a_token_with_the_claims_clients_read(api: Api) -> None:
    found = claims(api.token)
    assert found["feature_set"] == "basic"
    assert found["api_version"] == "2.31"
    assert found["identity"].keys() >= {"user", "company", "role"}
    days = (datetime.fromtimestamp(found["exp"], timezone.utc) - datetime.now(timezone.utc)).total_seconds() / 86400
    assert 29 < days <= 30


def test_login_renews_a_token_and_respects_the_lifetime_asked_for(api: Api) -> None:
    answer = api.parsed(api.raw("/auth.login?expiration_sec=600"))
    found = claims(answer.data["token"])
    assert found["exp"] - found["iat"] == 600


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "401/20"),
        ("Digest abc", "401/10"),
        ("Basic %%%", "401/21"),
        ("Basic " + base64.b64encode(b"no colon").decode(), "401/21"),
        ("Basic " + base64.b64encode(b"some:body").decode(), "401/22"),
        ("Bearer abc", "401/30"),
        ("Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.", "401/30"),
    ],
)
def test_kinds_of_bad_credentials_have_their_own_subcodes(api: Api, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    assert api.parsed(api.raw("/auth.login", headers=headers)).code == code


def test_right_access_key_with_wrong_secret_is_refused(api: Api) -> None:
    answer = api.parsed(api.raw("/auth.login", headers={"Authorization": api.basic(api.access, "wrong")}))
    assert answer.code == "401/22"


def test_the_key_pair_alone_opens_only_login(api: Api) -> None:
    # A browser that knows the pair sends it wherever a hostile page points it.
    headers = {"Authorization": api.basic(api.access, api.secret)}
    assert api.parsed(api.raw("/tasks.get_all", headers=headers)).code == "401/10"


def test_a_changed_token_is_refused(api: Api) -> None:
    head, _, signature = api.token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**claims(api.token), "exp": 9e9}).encode()).decode().rstrip("=")
    headers = {"Authorization": f"Bearer {head}.{forged}.{signature}"}
    assert api.parsed(api.raw("/tasks.get_all", headers=headers)).code == "401/30"


def test_envelope_has_what_clients_require(api: Api) -> None:
    answer = api.parsed(api.raw("/v2.5/queues.get_all/"))
    assert answer.meta["result_msg"] == "OK"
    assert answer.meta["endpoint"] == {"name": "queues.get_all", "requested_version": "2.5", "actual_version": "2.31"}
    assert answer.meta.keys() >= {"id", "trx", "result_subcode", "error_stack", "error_data"}


@pytest.mark.parametrize("path", ["/nothing.at_all", "/v2.5/tasks.fly", "/v9.9/tasks.fly", "/nonsense", "/a/b/c"])
def test_unknown_actions_get_an_envelope_with_404(api: Api, path: str) -> None:
    assert api.parsed(api.raw(path)).status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_every_method_takes_a_json_body(api: Api, method: str) -> None:
    task = api.task()
    assert api.ask("tasks.get_by_id", {"task": task}, method).data["task"]["id"] == task


def test_query_string_form_and_body_are_merged(api: Api) -> None:
    task = api.task("merged")
    by_query = api.parsed(api.raw(f"/tasks.get_all?id={task}&page=0&page_size=1&search_hidden=true"))
    by_form = api.parsed(api.raw("/tasks.get_all", "POST", data={"id": task, "page_size": "1"}))
    both = api.parsed(api.raw(f"/tasks.get_all?id={task}", "POST", json={"only_fields": ["name"]}))
    by_multipart = api.parsed(api.raw("/tasks.get_all", "POST", files={"id": (None, task)}))
    assert [t["id"] for t in by_query.data["tasks"]] == [task]
    assert [t["id"] for t in by_form.data["tasks"]] == [task]
    assert both.data["tasks"] == [{"id": task, "name": "merged"}]
    assert [t["id"] for t in by_multipart.data["tasks"]] == [task]


def test_json_that_curl_calls_a_form_is_read_as_json(api: Api) -> None:
    headers = {**api.headers, "Content-Type": "application/x-www-form-urlencoded"}
    answer = api.raw("/tasks.get_all", "POST", data=b'{"id": ["none"]}', headers=headers)
    assert api.parsed(answer).data == {"tasks": []}


def test_nulls_are_missing_and_unknown_fields_are_ignored(api: Api) -> None:
    task = api("tasks.create", name="new", type="training", project=None, comment=None, method="get")["id"]
    assert "project" not in api("tasks.get_by_id", task=task, only_fields=None)["task"]


def test_a_numeric_text_from_the_query_string_stays_the_text_it_is(api: Api) -> None:
    task = api.parsed(api.raw("/tasks.create?name=123&type=training")).data["id"]
    assert api("tasks.get_by_id", task=task)["task"]["name"] == "123"


def test_compressed_bodies_are_refused(api: Api) -> None:
    headers = {**api.headers, "Content-Encoding": "gzip"}
    assert api.parsed(api.raw("/tasks.get_all", "POST", headers=headers, data=b"x")).status == 415


def test_client_without_credentials_gets_a_reason_after_any_amount_of_data(api: Api) -> None:
    answer = api.raw("/tasks.get_all", "POST", headers={"Authorization": "Bearer x"}, data=b"x" * 40 * 1024 * 1024)
    assert api.parsed(answer).code == "401/30"


def test_bodies_have_a_limit(api: Api) -> None:
    assert api.ask("tasks.get_all", b'{"name": "' + b"x" * 33 * 1024 * 1024 + b'"}').status == 413


@pytest.mark.parametrize("path", ["/auth.login", "/files/", "/", "/nothing", "/tasks.get_all"])
def test_every_answer_closes_its_connection(api: Api, path: str) -> None:
    # Kept connections hang the SDK's forked reporter (docs/internals/clearml-protocol.md#connections).
    assert api.raw(path).headers["connection"] == "close"


def test_request_that_is_not_http_gets_a_plain_400(clearml_server: ClearmlServer) -> None:
    with socket.create_connection(address_of(clearml_server.url), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


NO_REQUEST = [
    b"{",
    b"[]",
    b"null",
    b"5",
    b'"text"',
    b"\xff\xfe",
    b"{" * 100_000,
    b'{"a":' * 50_000,
]
BROKEN = [
    *NO_REQUEST,
    b"",
    b'{"task": NaN}',
    b'{"task": "\\ud800"}',
    b'{"name": "\\ud800", "type": "training", "tags": ["\\udfff"]}',
]
VALUES: list[object] = [
    None,
    True,
    5,
    -1,
    2**70,
    -(2**70),
    1e308,
    "",
    "x",
    "\0",
    "x" * 3000,
    "-",
    "(",
    "$.a",
    'a"b',
    ".",
    "a.",
    "__$not",
    [],
    [None],
    ["x"],
    ["-"],
    [[]],
    [{}],
    [5],
    [""],
    ["."],
    {},
    {"": ""},
    {"x": None},
    {"x": {"x": {"x": 5}}},
    {"fields": ["name", "nope"], "pattern": "["},
    {"input": 5},
    {"artifacts": 5},
    {"artifacts": [{}]},
    {"requirements": {"pip": 5}},
]
FILTERS = [
    *("id", "name", "project", "status", "tags", "parent", "created", "last_update", "ready", "models"),
    *("only_fields", "order_by", "page", "page_size", "size", "scroll_id", "search_text", "search_hidden"),
    *("_any_", "_all_", "last_metrics.x.y", "script.diff", "runtime."),
]


def endpoints() -> list[Any]:
    from hpc_agent.server.services import ENDPOINTS

    return [pytest.param(name, ENDPOINTS[name].request, id=name) for name in sorted(ENDPOINTS)]


@pytest.mark.parametrize(("action", "request_type"), endpoints())
def test_malformed_input_is_refused_with_reason_never_500(
    api: Api, queue: str, action: str, request_type: type[RequestBody]
) -> None:
    good = {"task": api.task(), "name": "fine", "type": "training", "queue": queue, "worker": "w"}
    answers = [_sane(api.ask(action, body), body) for body in BROKEN]
    # Each field meets a fifth of the values, so that the fields of one kind meet all of them.
    for number, field in enumerate(getattr(request_type, "__struct_fields__", FILTERS), sum(action.encode())):
        answers += [_sane(api.ask(action, {**good, field: value}), (field, value)) for value in VALUES[number % 5 :: 5]]
    assert {answer.status for answer in answers} >= {400}


EVENTS = [
    {"type": "training_stats_scalar", "metric": "m", "variant": "v", "value": 1, "iter": 1},
    {"type": "plot", "metric": "m", "variant": "v", "iter": 1, "plot_str": "{}"},
    {"type": "log", "msg": "hello", "level": "INFO", "timestamp": 1},
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_malformed_events_are_counted_never_500(api: Api, event: dict[str, Any]) -> None:
    good = {**event, "task": api.task(), "worker": "w"}
    for field in good:
        for value in VALUES:
            batch = "\n".join(json.dumps(line) for line in (good, {**good, field: value}))
            answer = api.ask("events.add_batch", batch.encode())
            assert answer.status == 200, (field, value)
            assert answer.data["added"] + answer.data["errors"] == 2


def _sane(answer: Answered, sent: object) -> Answered:
    """One of two: carried out, with the envelope of a success; or refused, with a code and a sentence."""
    assert answer.status in (200, 400), (sent, answer.meta)
    if answer.status == 200:
        assert (answer.code, answer.meta["result_msg"]) == ("200/0", "OK"), (sent, answer.meta)
        assert isinstance(answer.data, dict), (sent, answer.data)
        assert sent not in NO_REQUEST, f"{sent[:50]!r} was taken for a request"
    else:
        assert answer.meta["result_subcode"] > 0, (sent, answer.meta)
        assert len(answer.meta["result_msg"]) > 10, (sent, answer.meta)
        assert answer.data == {}, (sent, answer.data)
    return answer


@pytest.mark.parametrize("depth", [101, 300, 980, 990, 100_000])
@pytest.mark.parametrize("shape", [b'{"a":', b"["])
def test_json_that_could_be_stored_but_not_read_again_is_refused(api: Api, depth: int, shape: bytes) -> None:
    task = api.task()
    inner = shape * depth + b"1" + (b"}" if shape != b"[" else b"]") * depth
    for action, field in (("tasks.edit", b"runtime"), ("events.add_batch", b"body")):
        fields = b'"task": "%s", "type": "plot", "metric": "m", "variant": "v"' % task.encode()
        answer = api.ask(action, b'{%s, "%s": {"x": %s}}' % (fields, field, inner))
        assert (answer.code, "nested too deeply" in answer.meta["result_msg"]) == ("400/12", True)


def test_json_of_ordinary_depth_is_kept(api: Api) -> None:
    value: dict[str, object] = {"a": [1, {"b": [[], {}, "{" * 1000]}]}
    for _ in range(80):
        value = {"x": value}
    task = api.task(runtime=value)
    assert api("tasks.get_by_id", task=task)["task"]["runtime"] == value


def test_a_call_about_very_many_things_is_refused(api: Api) -> None:
    for action, field in (
        ("tasks.archive", "tasks"),
        ("models.archive_many", "ids"),
        ("tasks.get_hyper_params", "tasks"),
    ):
        answer = api.ask(action, {field: ["x"] * 10_001})
        assert (answer.code, field in answer.meta["result_msg"]) == ("400/12", True)
