"""The pages: at the links that clients print, for the owner only, whatever a task is called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import requests
from http_api import Api

from hpc_agent.server.pages import console_text

Browser = Callable[[str], requests.Response]


@pytest.fixture
def browser(api: Api) -> Browser:
    """GET as a browser whose user has typed the key pair."""
    return lambda path: api.raw(path, headers={"Authorization": api.basic(api.access, api.secret)})


@pytest.mark.parametrize(
    "link",
    [
        "/projects/{p}/experiments/{t}/output/log",
        "/projects/{p}/tasks/{t}/output/log",
        "/projects/*/experiments/{t}/output/log",
        "/projects/{p}/experiments/{t}",
        "/pipelines/{p}/experiments/{t}",
        "/datasets/simple/{p}/experiments/{t}",
    ],
)
def test_every_link_that_clients_print_leads_to_the_task(api: Api, browser: Browser, link: str) -> None:
    project = api("projects.create", name=f"linked {link.replace('/', '|')}")["id"]
    task = api.task("findable", project=project)
    answer = browser(link.format(p=project, t=task))
    assert answer.status_code == 200
    assert "findable" in answer.text
    assert "linked" in answer.text


def test_strangers_see_nothing(api: Api) -> None:
    task = api.task("secret task")
    for path in ("/", f"/projects/*/experiments/{task}/output/log"):
        answer = api.raw(path, headers={})
        assert answer.status_code == 401
        assert "secret task" not in answer.text
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_a_page_shows_what_a_user_wants_to_know(api: Api, browser: Browser, queue: str) -> None:
    script = {"entry_point": "train.py", "diff": "import torch", "requirements": {"pip": "torch\nnumpy"}}
    task = api.task(
        "full", script=script, hyperparams={"Args": {"lr": {"value": "0.1"}}}, container={"image": "ubuntu"}
    )
    api("tasks.enqueue", task=task, queue=queue)
    api("tasks.started", task=task, status_reason="job 17 runs")
    api("events.add_batch", type="log", task=task, msg="epoch 1\repoch 2\nsecond line", timestamp=1)
    page = browser(f"/projects/*/experiments/{task}/output/log").text
    for text in ("full", "in progress", "job 17 runs", "train.py", "import torch", "numpy", "Args/lr", "0.1", "ubuntu"):
        assert text in page
    assert "epoch 2\nsecond line" in page
    assert "epoch 1" not in page


def test_content_of_a_task_is_escaped_in_the_page(api: Api, browser: Browser) -> None:
    evil = "<script>alert(1)</script>"
    task = api.task(
        evil,
        comment=evil,
        tags=[evil],
        project=api("projects.create", name=evil.replace("/", "|"))["id"],
        script={"diff": evil, "entry_point": evil, "requirements": {"pip": [evil]}},
        hyperparams={evil: {evil: {"value": evil}}},
    )
    api("tasks.failed", task=task, force=True, status_reason=evil, status_message=evil)
    api("events.add_batch", type="log", task=task, msg=evil)
    for path in ("/", f"/projects/*/experiments/{task}/output/log"):
        answer = browser(path)
        assert "&lt;script&gt;" in answer.text
        assert "<script" not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/projects/*/experiments/none", "/projects/a/b/c/d/e"])
def test_unknown_task_is_answered_with_404(browser: Browser, path: str) -> None:
    answer = browser(path)
    assert (answer.status_code, answer.text[:21]) == (404, "There is no such task")


@pytest.mark.parametrize("query", ["?page=x", "?page=-1", "?page=" + "9" * 400])
def test_invalid_page_number_is_refused_with_reason(browser: Browser, query: str) -> None:
    assert browser("/" + query).status_code == 400


def test_long_consoles_are_paged(api: Api, browser: Browser) -> None:
    task = api.task("long-winded")
    pad = "." * 8000
    lines = [{"type": "log", "task": task, "msg": f"line {i:03} {pad}", "timestamp": i + 1} for i in range(400)]
    api.ask("events.add_batch", "\n".join(map(json.dumps, lines)).encode())
    seen: list[str] = []
    pages = 0
    query: str | None = ""
    while query is not None:
        page = browser(f"/projects/*/experiments/{task}/output/log{query}").text
        assert len(page) < 1_500_000
        seen = re.findall(r"line (\d{3}) ", page) + seen
        earlier = re.search(r"\?before=\d+", page)
        query, pages = (earlier[0] if earlier else None), pages + 1
    assert seen == [f"{i:03}" for i in range(400)]
    assert pages == 3
    assert browser(f"/projects/*/experiments/{task}/output/log?before=x").status_code == 400


def test_lists_are_paged(api: Api, browser: Browser) -> None:
    for i in range(105):
        api.task(f"filler {i}")
    assert "/?page=1" in browser("/").text
    assert browser("/?page=1").status_code == 200


def test_console_text_is_what_a_terminal_would_show_last() -> None:
    assert console_text(["\x1b[31mred\x1b[0m\n", "10%\r50%\r100%\r\n", "bell\x07 title\x1b]0;t\x07", "end"]) == (
        "red\n100%\nbell title\nend\n"
    )


def earlier_link(page: str) -> str | None:
    found = re.search(r'"(\?before=[\d-]+)"', page)
    return found and found[1]


def test_a_console_of_a_hundred_thousand_chunks_of_one_moment_is_paged_in_order(api: Api, browser: Browser) -> None:
    task = api.task("one line a chunk")
    for start in range(0, 100_000, 50_000):
        batch = [
            {"type": "log", "task": task, "msg": f"[{number}]", "timestamp": 1}
            for number in range(start, start + 50_000)
        ]
        api.ask("events.add_batch", "\n".join(map(json.dumps, batch)).encode())
    newest = browser(f"/projects/*/experiments/{task}/output/log").text
    shown = re.findall(r"\[(\d+)\]", newest)
    assert shown == [str(number) for number in range(95_000, 100_000)]
    before = browser(f"/projects/*/experiments/{task}/output/log{earlier_link(newest)}").text
    assert re.findall(r"\[(\d+)\]", before) == [str(number) for number in range(90_000, 95_000)]


def test_page_size_is_bounded_for_any_task(api: Api, browser: Browser) -> None:
    huge = "x" * 3_000_000
    task = api.task(
        "h" * 1_000,
        comment=huge,
        tags=["t"] * 10_000,
        script={"diff": huge, "entry_point": "a.py", "requirements": {"pip": huge}},
        hyperparams={"Args": {f"p{number}": {"value": "v" * 100} for number in range(20_000)}},
    )
    api("events.add", type="log", task=task, msg=huge + "end of the console", timestamp=1)
    page = browser(f"/projects/*/experiments/{task}/output/log").text
    assert len(page) < 3_500_000
    assert "end of the console" in page


def test_the_console_in_one_answer_is_bounded(api: Api) -> None:
    task = api.task("many long chunks")
    for number in range(5):
        api("events.add", type="log", task=task, msg=f"{number}" + "x" * 5_000_000, timestamp=number + 1)
    answer = api("events.get_task_log", task=task, batch_size=1000)
    assert [event["msg"][0] for event in answer["events"]] == ["4", "3", "2", "1"]
    assert answer["total"] == 5
