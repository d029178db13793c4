"""The page in a real browser: a person's day, keys, themes, narrow screens, and what a security policy must allow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from http_api import Api
from page_browser import Window, chromium, window
from playwright.sync_api import Browser, Page, expect
from waiting import HANG_S, equals, wait_until

HOSTILE = "</title><script>document.documentElement.id='taken'</script><img src=x onerror=\"document.body.id='taken'\">"

pytestmark = pytest.mark.browser
expect.set_options(timeout=HANG_S * 1000)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.fixture
def browser(api: Api, program: Browser) -> Iterator[Window]:
    """Logged in; at the end the browser has complained about nothing."""
    with window(program, api.url) as opened:
        opened.log_in(api.access, api.secret)
        yield opened
        assert opened.complaints == []


def scalars(api: Api, task: str, points: range, metric: str = "loss") -> None:
    events = [
        {
            "type": "training_stats_scalar",
            "task": task,
            "metric": metric,
            "variant": "train",
            "iter": i,
            "value": 1 / (i + 1),
        }
        for i in points
    ]
    answer = api.ask("events.add_batch", "\n".join(map(json.dumps, events)).encode())
    assert answer.data["added"] == len(events)


def points_drawn(page: Page, metric: str) -> list[int]:
    """How many points each curve of a chart has."""
    drawn = """(metric) => {
        const title = [...document.querySelectorAll('.chart h2')].find((h) => h.textContent === metric);
        return (title?.parentElement.querySelector('.plot').data ?? []).map((curve) => curve.x.length);
    }"""
    found: list[int] = page.evaluate(drawn, metric)
    return found


def running_task(api: Api, name: str, project: str, **fields: Any) -> str:
    task = api.task(name, project=project, hyperparams={"Args": {"lr": {"value": "0.1"}}}, **fields)
    api("tasks.started", task=task)
    return task


def test_a_persons_day(api: Api, browser: Window, queue: str) -> None:
    project = api("projects.create", name="the day")["id"]
    baseline = running_task(api, "baseline", project)
    scalars(api, baseline, range(40))
    api("tasks.completed", task=baseline)
    task = running_task(api, "train the net", project)
    scalars(api, task, range(10))
    page = browser.page

    # Finds a task.
    page.get_by_role("link", name="Projects", exact=True).click()
    page.get_by_role("link", name="the day").click()
    page.get_by_placeholder("Search name").fill("train")
    expect(page.locator("td.name")).to_have_text(["train the net"])
    page.get_by_role("link", name="train the net").click()

    # Reads its log while it is written.
    page.get_by_role("link", name="Console").click()
    api("events.add", type="log", task=task, msg="\x1b[32mepoch 1 of 90\x1b[0m")
    expect(page.get_by_text("epoch 1 of 90")).to_have_class("t-fg-green")
    for number in range(200):
        api("events.add", type="log", task=task, msg=f"line {number}")
    expect(page.get_by_text("line 199")).to_be_in_viewport()
    page.get_by_placeholder("Search the whole console").fill("LINE 17")
    expect(page.locator("#matches li")).to_have_count(11)

    # Sees its curves move.
    page.get_by_role("link", name="Scalars", exact=True).click()
    wait_until("10 points", lambda: points_drawn(page, "loss"), equals([10]))
    scalars(api, task, range(10, 25))
    wait_until("the new points", lambda: points_drawn(page, "loss"), equals([25]))

    # Compares two.
    browser.open(f"/projects/{project}/tasks")
    page.get_by_label("Select baseline").check()
    page.get_by_label("Select train the net").check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Comparison of 2 tasks")).to_be_visible()
    page.get_by_role("link", name="Scalars", exact=True).click()
    wait_until("both curves", lambda: points_drawn(page, "loss"), equals([40, 25]))

    # Clones one, changes a parameter, enqueues it.
    browser.open(f"/projects/*/tasks/{baseline}")
    page.get_by_role("button", name="Clone").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("with a larger step")
    dialog.get_by_role("button", name="Clone").click()
    expect(page.get_by_role("heading", name="with a larger step")).to_be_visible()
    expect(page.get_by_text("“baseline” cloned.")).to_be_visible()
    page.get_by_role("link", name="Edit Args").click()
    page.get_by_label("Value of lr").fill("0.5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("cell", name="0.5")).to_be_visible()
    page.get_by_role("button", name="Enqueue").click()
    dialog.get_by_label("Queue", exact=True).select_option(value=queue)
    dialog.get_by_role("button", name="Enqueue").click()
    expect(page.locator("#head .status")).to_have_text("Queued")
    entries = api("queues.get_by_id", queue=queue)["queue"]["entries"]
    clone = api("tasks.get_by_id", task=entries[0]["task"])["task"]
    assert (clone["name"], clone["hyperparams"]["Args"]["lr"]["value"]) == ("with a larger step", "0.5")

    # Aborts it, and sees that it was.
    page.get_by_role("button", name="Abort").click()
    dialog.get_by_role("button", name="Abort").click()
    expect(page.locator("#head .status")).to_have_text("Aborted")
    assert api.status(clone["id"]) == "stopped"


def test_table_shows_a_new_status_by_itself_and_keeps_the_selection(api: Api, browser: Window) -> None:
    project = api("projects.create", name="live")["id"]
    task, other = api.task("changes", project=project), api.task("stays", project=project)
    page = browser.open(f"/projects/{project}/tasks")
    page.get_by_label("Select stays").check()
    api("tasks.started", task=task)
    expect(page.locator(f"tr[data-id='{task}'] .status")).to_have_text("Running")
    expect(page.get_by_label("Select stays")).to_be_checked()
    assert api.status(other) == "created"


def test_archived_task_is_brought_back_by_undo(api: Api, browser: Window) -> None:
    project = api("projects.create", name="undone")["id"]
    api.task("archived by mistake", project=project)
    page = browser.open(f"/projects/{project}/tasks")
    page.get_by_label("Select archived").check()
    page.get_by_role("button", name="Archive", exact=True).click()
    expect(page.locator("td.name")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("td.name")).to_have_text(["archived by mistake"])


def test_refusal_is_shown_and_nothing_is_lost(api: Api, browser: Window) -> None:
    task = api.task("enqueued elsewhere meanwhile", hyperparams={"Args": {"lr": {"value": "1"}}})
    page = browser.open(f"/projects/*/tasks/{task}/configuration?edit=p:Args")
    page.get_by_label("Value of lr").fill("2")
    api("tasks.started", task=task)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("only a draft can be changed")
    expect(page.get_by_label("Value of lr")).to_have_value("2")


def test_order_of_a_queue_is_changed(api: Api, browser: Window, queue: str) -> None:
    for name in ("first", "second"):
        api("tasks.enqueue", task=api.task(name), queue=queue)
    page = browser.open("/queues")
    page.locator(f"#queue-{queue}").get_by_role("button", name="To the front: second").click()
    expect(page.locator(f"#queue-{queue} tbody tr td:nth-child(2)")).to_have_text(["second", "first"])
    page.locator(f"#queue-{queue}").get_by_role("button", name="Take off the queue: first").click()
    expect(page.locator(f"#queue-{queue} tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(f"#queue-{queue} tbody tr td:nth-child(2)")).to_have_text(["second", "first"])


def test_keys_search_walk_select_and_open(api: Api, browser: Window) -> None:
    project = api("projects.create", name="by keys")["id"]
    for name in ("run a", "run b", "run c"):
        api.task(name, project=project)
    page = browser.open(f"/projects/{project}/tasks?order=name")
    page.keyboard.press("/")
    expect(page.get_by_placeholder("Search name")).to_be_focused()
    page.keyboard.press("Escape")
    for key in ("j", "j", "x"):
        page.keyboard.press(key)
    expect(page.get_by_label("Select run b")).to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="run c", exact=True)).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()


def test_theme_follows_the_system_and_the_button_and_is_remembered(browser: Window) -> None:
    page = browser.open("/queues")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.evaluate(background) == light
    browser.open("/workers")
    assert page.evaluate(background) == light


FIGURES = {
    "heatmap": {"type": "heatmap", "z": [[1, 2], [3, 4]]},
    "table": {"type": "table", "header": {"values": ["a"]}, "cells": {"values": [[1, 2]]}},
    "histogram": {"type": "histogram", "x": [1, 1, 2]},
    "box": {"type": "box", "y": [1, 2, 3]},
    "pie": {"type": "pie", "values": [1, 2], "labels": ["x", "y"]},
}


def test_figures_are_drawn_under_the_security_policy(api: Api, browser: Window) -> None:
    task = api.task("with figures")
    for name, trace in FIGURES.items():
        figure = json.dumps({"data": [trace], "layout": {"title": {"text": name}}})
        api("events.add", type="plot", task=task, metric=name, variant="v", iter=1, plot_str=figure)
    page = browser.open(f"/projects/*/tasks/{task}/plots")
    for name in FIGURES:
        card = page.locator(f"[data-name='{name} v']")
        card.scroll_into_view_if_needed()
        expect(card.locator(".main-svg").first).to_be_attached()


def test_a_hostile_task_is_shown_as_it_is_written(api: Api, browser: Window) -> None:
    project = api("projects.create", name=f"project {HOSTILE}")["id"]
    task = api.task(f"task {HOSTILE}", project=project, comment=HOSTILE, script={"diff": HOSTILE}, tags=[HOSTILE])
    api("events.add", type="log", task=task, msg=f"line {HOSTILE}")
    scalars(api, task, range(3), metric=HOSTILE)
    figure = json.dumps({"data": [{"type": "bar", "y": [1], "name": HOSTILE}], "layout": {"title": {"text": HOSTILE}}})
    api("events.add", type="plot", task=task, metric=HOSTILE, variant="v", iter=1, plot_str=figure)
    for path in ("info", "execution", "console", "scalars", "plots"):
        page = browser.open(f"/projects/{project}/tasks/{task}/{path}")
        if path in ("scalars", "plots"):
            expect(page.locator(".main-svg").first).to_be_attached()
        assert "task </title><script>" in page.locator("h1").inner_text()
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("[document.documentElement.id, document.body.id]") == ["", ""]
        assert page.evaluate("[...document.scripts].every((script) => script.src)")


def test_a_phone_shows_the_whole_navigation(browser: Window) -> None:
    page = browser.open("/dashboard")
    page.set_viewport_size({"width": 420, "height": 800})
    links = page.get_by_role("navigation", name="Main").get_by_role("link").all()
    assert [link.inner_text().strip() for link in links][:2] == ["Dashboard", "Projects"]
    for link in links:
        box = link.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 420


WIDTHS = (360, 820, 1400)


def test_no_page_is_wider_than_its_screen_and_all_are_accessible(api: Api, browser: Window, queue: str) -> None:
    project = api("projects.create", name="p" * 200)["id"]
    long = "a-name-without-a-place-to-break-" * 12
    task = running_task(api, long, project, comment=long, tags=[long], script={"diff": "x" * 3000, "entry_point": long})
    api("events.add", type="log", task=task, msg="y" * 3000)
    scalars(api, task, range(5))
    other = api.task("other", project=project)
    api("tasks.enqueue", task=other, queue=queue)
    tabs = ("info", "execution", "configuration", "artifacts", "console", "scalars", "job")
    paths = [f"/projects/{project}/tasks/{task}/{tab}" for tab in tabs]
    paths += [
        "/dashboard",
        "/projects",
        f"/projects/{project}/tasks",
        "/queues",
        "/workers",
        f"/compare?ids={task},{other}",
    ]
    page = browser.page
    for path in paths:
        browser.open(path)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            problems = Axe().run(page).response["violations"]
            found = [(p["id"], [re.sub(r"\s+", " ", n["html"])[:200] for n in p["nodes"][:3]]) for p in problems]
            assert found == [], (path, scheme)
