"""The web page over HTTP: who is let in, what the links that clients print lead to, what each page shows, what forms
do."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests
from http_api import Api
from page_session import PageSession

from hpc_agent.server.page.rendering import PAGE_HEADERS

PROMPTLY = {"HX_Request": "true"}


@pytest.fixture
def browser(api: Api) -> Iterator[PageSession]:
    with PageSession(api.url, api.access, api.secret) as session:
        yield session


@pytest.fixture
def member(api: Api) -> Iterator[PageSession]:
    """A user who is not an administrator."""
    user = api("auth.create_user", name="a member of the group")["id"]
    keys = api("auth.create_credentials", user=user)["credentials"]
    with PageSession(api.url, keys["access_key"], keys["secret_key"]) as session:
        yield session


def stranger(api: Api, path: str, method: str = "GET", **options: Any) -> requests.Response:
    """A request without anything that earlier ones got."""
    with requests.Session() as http:
        http.trust_env = False
        return http.request(method, api.url + path, timeout=30, allow_redirects=False, **options)


def notice(answer: Any) -> dict[str, Any]:
    """What the browser shows after a form has succeeded."""
    assert answer.status_code == 204, answer.text
    shown: dict[str, Any] = json.loads(answer.headers["HX-Trigger"])["notice"]
    return shown


@pytest.mark.parametrize(
    ("link", "tab"),
    [
        ("/projects/{p}/experiments/{t}/output/log", "Console"),
        ("/projects/{p}/tasks/{t}/output/log", "Console"),
        ("/projects/*/experiments/{t}/output/log", "Console"),
        ("/projects/{p}/experiments/{t}", "Overview"),
        ("/projects/{p}/experiments/{t}/info-output/metrics/scalar", "Scalars"),
        ("/projects/{p}/experiments/{t}/info-output/metrics/plots", "Plots"),
        ("/projects/{p}/experiments/{t}/info-output/debugImages", "Images"),
        ("/projects/{p}/tasks/{t}/hyper-params/hyper-param/Args", "Configuration"),
        ("/projects/{p}/tasks/{t}/artifacts/other/model", "Artifacts"),
        ("/projects/{p}/tasks/{t}/execution", "Execution"),
        ("/pipelines/{p}/experiments/{t}", "Overview"),
        ("/datasets/simple/{p}/experiments/{t}", "Overview"),
    ],
)
def test_every_link_that_clients_print_opens_its_tab(api: Api, browser: PageSession, link: str, tab: str) -> None:
    project = api("projects.create", name=f"linked {link.replace('/', '|')}")["id"]
    task = api.task("findable", project=project)
    answer = browser.get(link.format(p=project, t=task))
    assert answer.status_code == 200
    assert "findable" in answer.text
    assert "linked" in answer.text
    tabs = re.findall(r'aria-current="page">(\w+)</a>', answer.text.partition('class="tabs"')[2])
    assert tabs == [tab]


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/dashboard", "/projects", "/projects/*", "/projects/*/tasks", "/projects/*/experiments"),
        *("/projects/*/models", "/queues", "/workers", "/workers-and-queues/workers", "/workers-and-queues/queues"),
    ],
)
def test_usual_paths_of_the_page_are_answered(browser: PageSession, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == PAGE_HEADERS["Content-Security-Policy"]
    assert "'unsafe-inline'" not in re.findall("script-src ([^;]*);", answer.headers["content-security-policy"])[0]
    # Not in values nor between tags: the names of other tests' tasks have such text, escaped.
    tags = re.findall(r"<[^<>]*>", re.sub(r'"[^"]*"', '""', answer.text))
    assert [tag for tag in tags if re.search(r"<script(?! src=)|\s(on\w+|style)=", tag)] == []
    assert any(tag.startswith("<script src=") for tag in tags)


def test_page_of_a_model_is_at_the_link_of_clients(api: Api, browser: PageSession) -> None:
    model = api("models.create", name="a net", uri="s3://bucket/net.pt", labels={"cat": 1})["id"]
    page = browser.get(f"/projects/*/models/{model}/general")
    assert page.status_code == 200
    assert "s3://bucket/net.pt" in page.text
    assert "cat" in page.text


@pytest.mark.parametrize("path", ["/dashboard", "/projects/*/tasks?status=failed&text=a%20b"])
def test_strangers_are_led_to_the_login_and_back(api: Api, path: str) -> None:
    answer = stranger(api, path, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {"next": [path]}
    login = stranger(api, answer.headers["location"])
    assert f'name="next" value="{html.escape(path)}"' in login.text
    form = {"access_key": api.access, "secret_key": api.secret, "next": path}
    entered = stranger(api, "/login", "POST", data=form)
    assert (entered.status_code, entered.headers["location"]) == (303, path)
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_parts_of_pages_and_files_are_not_shown_to_strangers(api: Api) -> None:
    task = api.task("secret task")
    part = stranger(api, f"/tasks/{task}/head", headers={"HX-Request": "true", "HX-Current-URL": f"{api.url}/queues"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/login?next=%2Fqueues")
    assert stranger(api, "/files/a/b").status_code == 401
    assert stranger(api, "/files/a/b", headers={"Accept": "text/html"}).status_code == 303


@pytest.mark.parametrize(
    "address", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"]
)
def test_login_never_leads_to_another_site(api: Api, address: str) -> None:
    form = {"access_key": api.access, "secret_key": api.secret, "next": address}
    answer = stranger(api, "/login", "POST", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_wrong_key_pair_is_refused_with_a_sentence(api: Api) -> None:
    answer = stranger(api, "/login", "POST", data={"access_key": api.access, "secret_key": "wrong"})
    assert answer.status_code == 401
    assert "does not exist or was revoked" in answer.text
    assert "set-cookie" not in answer.headers


def test_scripts_may_read_pages_with_a_key_pair_but_change_nothing(api: Api) -> None:
    task = api.task("read by a script")
    headers = {"Authorization": api.basic(api.access, api.secret)}
    assert "read by a script" in stranger(api, f"/projects/*/tasks/{task}", headers=headers).text
    answer = stranger(api, "/actions/delete", "POST", headers=headers, data={"id": task})
    assert answer.status_code == 401
    assert api.status(task) == "created"


def test_a_session_ends_at_the_logout(browser: PageSession) -> None:
    cookies = dict(browser.http.cookies)
    assert browser.post("/logout", {"form_token": browser.form_token}, "").status_code == 303
    browser.http.cookies.update(cookies)
    answer = browser.get("/dashboard")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fdashboard")


def test_a_session_ends_with_its_key_pair(api: Api) -> None:
    user = api("auth.create_user", name="short")["id"]
    keys = api("auth.create_credentials", user=user)["credentials"]
    with PageSession(api.url, keys["access_key"], keys["secret_key"]) as session:
        assert session.get("/dashboard").status_code == 200
        api("auth.revoke_credentials", user=user, access_key=keys["access_key"])
        assert session.get("/dashboard").status_code == 303


@pytest.mark.parametrize(
    ("token", "headers"),
    [("", {}), ("0" * 64, {}), (None, {"Origin": "https://evil.example"}), (None, {"Origin": "null"})],
)
def test_form_of_another_site_changes_nothing(
    api: Api, browser: PageSession, token: str | None, headers: dict[str, str]
) -> None:
    task = api.task("kept")
    answer = browser.post("/actions/delete", {"id": task}, token, **headers)
    assert answer.status_code == 403
    assert api.status(task) == "created"


def test_a_user_cannot_do_on_the_page_what_the_api_refuses(api: Api, member: PageSession) -> None:
    task = api.task("of the administrator")
    assert "of the administrator" in member.get(f"/projects/*/tasks/{task}").text
    answer = member.post("/actions/delete", {"id": task}, **PROMPTLY)
    assert answer.status_code == 403
    assert "not the caller" in answer.text
    assert api.status(task) == "created"


def test_content_of_a_task_is_escaped_on_every_tab(api: Api, browser: PageSession) -> None:
    evil = "'\"><script>alert(1)</script>"
    task = api.task(
        evil,
        comment=evil,
        tags=[evil],
        project=api("projects.create", name=evil.replace("/", "|"), description=evil)["id"],
        script={"diff": evil, "entry_point": evil, "repository": evil, "requirements": {"pip": [evil]}},
        container={"image": evil, "arguments": evil},
        hyperparams={evil: {evil: {"value": evil}}, "properties": {evil: {"value": evil}}},
        configuration={evil: {"value": evil}},
        execution={
            "artifacts": [{"key": evil, "mode": "output", "uri": "javascript:alert(1)", "type_data": {"preview": evil}}]
        },
    )
    api("tasks.failed", task=task, force=True, status_reason=evil, status_message=evil)
    api("events.add", type="log", task=task, msg=evil)
    api("events.add", type="plot", task=task, metric=evil, variant=evil, plot_str=evil)
    api("events.add", type="training_stats_scalar", task=task, metric=evil, variant=evil, iter=1, value=1)
    tabs = ("info", "execution", "configuration", "artifacts", "console", "scalars", "plots", "images", "job")
    pages = [f"/projects/*/tasks/{task}/{tab}" for tab in tabs]
    other = api.task("plain")
    pages += [
        "/dashboard",
        "/projects/*/tasks",
        "/projects",
        f"/compare?ids={task},{other}&all=1",
        "/projects/*/columns",
    ]
    pages += [f"/actions/clone?id={task}", f"/tasks/{task}/console/search?text=script"]
    for path in pages:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text, path
        assert 'href="javascript:' not in answer.text, path


@pytest.mark.parametrize(
    "path", ["/projects/*/experiments/none", "/projects/a/b/c/d/e", "/projects/none/tasks", "/nothing"]
)
def test_unknown_page_is_answered_with_404_and_a_sentence(browser: PageSession, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "There is no such" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("/projects/*/tasks?page=x", "/projects/*/tasks?page=-1", "/projects/*/tasks?page=" + "9" * 400),
        *(
            "/projects/*/models?page=x",
            "/compare",
            "/compare?ids=one",
            "/charts/scalars",
            "/charts/scalars?task=a&axis=b",
        ),
        *("/actions/nonsense", "/compare?ids=a,b&part=c", "/compare?ids=" + ",".join(map(str, range(50)))),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(browser: PageSession, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 400
    assert "Validation error" in answer.text


def test_wrong_forms_are_refused_with_a_sentence(api: Api, browser: PageSession) -> None:
    task = api.task("edited", hyperparams={"Args": {"lr": {"value": "1"}}})
    for path, form in (
        ("/actions/enqueue", {"id": task}),
        ("/actions/enqueue", {"id": task, "queue": "none"}),
        ("/actions/nonsense", {"id": task}),
        ("/actions/clone", {}),
        ("/actions/tag", {"id": task}),
        (f"/tasks/{task}/details", {"name": " "}),
        (f"/tasks/{task}/parameters", {"section": "Args", "name": ["a", "b"], "value": "1"}),
        ("/queues/actions/create", {"name": ""}),
        ("/queues/actions/nonsense", {}),
    ):
        answer = browser.post(path, form, **PROMPTLY)
        assert answer.status_code == 400, path
        assert len(answer.text) > 20
    assert api("tasks.get_by_id", task=task)["task"]["hyperparams"]["Args"]["lr"]["value"] == "1"


def test_tables_are_filtered_sorted_and_paged(api: Api, browser: PageSession) -> None:
    project = api("projects.create", name="paged")["id"]
    inside = api("projects.create", name="paged/inside")["id"]
    tasks = [
        api.task(f"run {i:03}", project=inside if i == 7 else project, hyperparams={"Args": {"lr": {"value": str(i)}}})
        for i in range(105)
    ]
    api("tasks.failed", task=tasks[5], force=True)
    api("tasks.archive", tasks=[tasks[6]])

    def names(query: str) -> list[str]:
        page = browser.get(f"/projects/{project}/tasks{query}").text
        return re.findall(r'<td class="name" title="([^"]*)"', page)

    assert names("?order=name") == [f"run {i:03}" for i in range(101) if i != 6]
    assert names("?order=name&page=1") == [f"run {i:03}" for i in range(101, 105)]
    assert names("?order=-name")[0] == "run 104"
    assert names("?status=failed") == ["run 005"]
    assert names("?view=archived") == ["run 006"]
    assert names("?text=RUN%20007") == ["run 007"]
    assert names("?text=.*") == []
    page = browser.get(f"/projects/{project}/tasks?columns=status&columns=p:Args/lr&order=name").text
    assert re.findall(r"<th[^>]*>(?:<a[^>]*>)?([\w ]+)<", page) == ["Name", "Status", "lr"]
    assert '<td title="104">104</td>' in browser.get(f"/projects/{project}/tasks?order=-name").text


def test_a_draft_is_changed_and_a_running_task_is_not(api: Api, browser: PageSession) -> None:
    parameters = {"Args": {"lr": {"value": "1", "type": "float"}, "old": {"value": "x"}}}
    task = api.task("draft", hyperparams=parameters, configuration={"net": {"value": "a"}}, script={"branch": "main"})
    form = {"section": "Args", "name": ["lr", "new", ""], "value": ["0.5", "y", ""]}
    assert notice(browser.post(f"/tasks/{task}/parameters", form))["text"] == "Parameters of Args saved."
    browser.post(f"/tasks/{task}/configuration", {"name": "net", "value": "a\r\nb"})
    browser.post(f"/tasks/{task}/execution", {"branch": "dev", "packages": "numpy", "image": "ubuntu"})
    browser.post(f"/tasks/{task}/details", {"name": "renamed", "tags": "a, b", "comment": "why"})
    found = api("tasks.get_by_id", task=task)["task"]
    assert {name: item["value"] for name, item in found["hyperparams"]["Args"].items()} == {"lr": "0.5", "new": "y"}
    assert found["hyperparams"]["Args"]["lr"]["type"] == "float"
    assert found["configuration"]["net"]["value"] == "a\nb"
    assert (found["script"]["branch"], found["script"]["requirements"]) == ("dev", {"pip": "numpy"})
    assert (found["name"], found["tags"], found["comment"]) == ("renamed", ["a", "b"], "why")
    assert found["container"]["image"] == "ubuntu"
    api("tasks.started", task=task)
    answer = browser.post(f"/tasks/{task}/parameters", {"section": "Args", "name": "lr", "value": "7"}, **PROMPTLY)
    assert answer.status_code == 400
    assert "only a draft can be changed" in answer.text


def test_actions_and_taking_them_back(api: Api, browser: PageSession, queue: str) -> None:
    first, second = api.task("first"), api.task("second")
    answer = notice(browser.post("/actions/enqueue", {"id": [first, second], "queue": queue}))
    assert answer["text"].startswith("2 tasks enqueued on queue of ")
    assert (api.status(first), api.status(second)) == ("queued", "queued")
    assert answer["undo"]["action"] == "/actions/dequeue"
    browser.post("/queues/actions/backward", {"queue": queue, "task": first})
    order = [entry["task"] for entry in api("queues.get_by_id", queue=queue)["queue"]["entries"]]
    assert order == [second, first]
    removed = notice(browser.post("/queues/actions/remove", {"queue": queue, "task": second}))
    assert api.status(second) == "created"
    back = dict(pair.split("=") for pair in removed["undo"]["body"].split("&"))
    assert notice(browser.post(removed["undo"]["action"], back))["text"] == "Enqueued again, at its former place."
    assert [e["task"] for e in api("queues.get_by_id", queue=queue)["queue"]["entries"]] == [second, first]
    browser.post("/actions/abort", {"id": first})
    assert api.status(first) == "stopped"
    browser.post("/actions/archive", {"id": first})
    assert "archived" in api("tasks.get_by_id", task=first)["task"]["system_tags"]
    browser.post("/actions/unarchive", {"id": first})
    cloned = notice(browser.post("/actions/clone", {"id": first, "name": "copy", "project": "new project"}))
    copy = re.findall("/tasks/([0-9a-f]{32})/", cloned["go"])[0]
    assert api("tasks.get_by_id", task=copy)["task"]["name"] == "copy"
    browser.post("/actions/reset", {"id": first})
    assert api.status(first) == "created"
    browser.post("/actions/tag", {"id": [first, copy], "add": "x, y"})
    assert api("tasks.get_by_id", task=copy)["task"]["tags"] == ["x", "y"]
    browser.post("/actions/move", {"id": copy, "project": "elsewhere"})
    browser.post("/actions/delete", {"id": copy})
    assert api.ask("tasks.get_by_id", {"task": copy}).code == "400/101"


def test_a_refusal_for_some_of_many_tasks_names_one_of_them(api: Api, browser: PageSession) -> None:
    ended, running = api.task("the ended one"), api.task("the running one")
    api("tasks.completed", task=ended, force=True)
    api("tasks.started", task=running)
    text = notice(browser.post("/actions/publish", {"id": [ended, running]}))["text"]
    assert text.startswith("“the ended one” published. Refused for 1, the running one first: Invalid task status")


def test_dialog_leaves_out_tasks_whose_status_does_not_fit(api: Api, browser: PageSession, queue: str) -> None:
    draft, running = api.task("the draft"), api.task("the running one")
    api("tasks.started", task=running)
    dialog = browser.get(f"/actions/enqueue?id={draft}&id={running}").text
    assert "the draft" in dialog
    assert "the running one" not in dialog
    assert "1 other selected task is left out" in dialog


def test_console_is_paged_followed_searched_and_downloaded(api: Api, browser: PageSession) -> None:
    task = api.task("long-winded")
    pad = "." * 4000
    lines = [{"type": "log", "task": task, "msg": f"line {i:03} {pad}", "timestamp": i + 1} for i in range(400)]
    api.ask("events.add_batch", "\n".join(map(json.dumps, lines)).encode())
    seen: list[str] = []
    page = browser.get(f"/projects/*/tasks/{task}/output/log").text
    after = re.findall(r"later\?after=(\d+)", page)[0]
    while True:
        assert len(page) < 900_000
        seen = re.findall(r"line (\d{3}) ", page) + seen
        earlier = re.search(r"/tasks/\w+/console/earlier\?before=[\d-]+", page)
        if earlier is None:
            break
        page = browser.get(earlier[0]).text
    assert seen == [f"{i:03}" for i in range(400)]
    assert "line" not in browser.get(f"/tasks/{task}/console/later?after={after}").text
    api("events.add", type="log", task=task, msg="\x1b[31mred\x1b[0m <b>", timestamp=1)
    later = browser.get(f"/tasks/{task}/console/later?after={after}").text
    assert '<span class="t-fg-red">red</span> &lt;b&gt;' in later
    found = browser.get(f"/tasks/{task}/console/search?text=LINE%20123").text
    assert re.findall(r"line \d{3}", found) == ["line 123"]
    place = re.findall(r'href="(\?before=[\d-]+)"', found)[0]
    assert re.findall(r"line (\d{3}) ", browser.get(f"/projects/*/tasks/{task}/console{place}").text)[-1] == "123"
    assert browser.get(f"/projects/*/tasks/{task}/output/log?before=x").status_code == 400
    whole = browser.get(f"/tasks/{task}/console/download")
    assert whole.text.count("line ") == 400
    assert whole.headers["content-disposition"] == 'attachment; filename="long-winded.log"'


def test_a_console_of_a_hundred_thousand_chunks_of_one_moment_is_paged_in_order(api: Api, browser: PageSession) -> None:
    task = api.task("one line a chunk")
    for start in range(0, 100_000, 50_000):
        batch = [
            {"type": "log", "task": task, "msg": f"[{number}]", "timestamp": 1}
            for number in range(start, start + 50_000)
        ]
        api.ask("events.add_batch", "\n".join(map(json.dumps, batch)).encode())
    newest = browser.get(f"/projects/*/tasks/{task}/output/log").text
    assert re.findall(r"\[(\d+)\]", newest) == [str(number) for number in range(95_000, 100_000)]
    earlier = re.findall(r"/tasks/\w+/console/earlier\?before=[\d-]+", newest)[0]
    assert re.findall(r"\[(\d+)\]", browser.get(earlier).text) == [str(number) for number in range(90_000, 95_000)]


def test_page_size_is_bounded_for_any_task(api: Api, browser: PageSession) -> None:
    huge = "x" * 3_000_000
    task = api.task(
        "h" * 1_000,
        comment=huge,
        tags=["t"] * 10_000,
        script={"diff": huge, "entry_point": "a.py", "requirements": {"pip": huge}},
        hyperparams={"Args": {f"p{number}": {"value": "v" * 100} for number in range(20_000)}},
    )
    api("events.add", type="log", task=task, msg=huge + "end of the console", timestamp=1)
    for tab in ("info", "execution", "configuration", "output/log"):
        assert len(browser.get(f"/projects/*/tasks/{task}/{tab}").text) < 3_500_000, tab
    assert "end of the console" in browser.get(f"/projects/*/tasks/{task}/output/log").text


def test_charts_have_the_curves_of_several_tasks(api: Api, browser: PageSession) -> None:
    tasks = [api.task(name) for name in ("one", "two")]
    for task in tasks:
        for i in range(3):
            api("events.add", type="training_stats_scalar", task=task, metric="loss", variant="train", iter=i, value=i)
    data = browser.get(f"/charts/scalars?task={tasks[0]}&task={tasks[1]}").json()
    assert [task["name"] for task in data["tasks"]] == ["one", "two"]
    assert data["curves"]["loss"]["train"][tasks[1]] == {"x": [0, 1, 2], "y": [0, 1, 2]}
    figure = {"data": [{"type": "bar", "y": [1]}], "layout": {}}
    api("events.add", type="plot", task=tasks[0], metric="m", variant="v/1 &", iter=1, plot_str=json.dumps(figure))
    assert "variant=v/1%20%26" in browser.get(f"/projects/*/tasks/{tasks[0]}/plots").text
    found = browser.get(f"/charts/figures?task={tasks[0]}&metric=m&variant=v%2F1%20%26").json()["figures"]
    assert [item["figure"] for item in found] == [figure]


def test_files_are_shown_and_downloaded_with_the_session(api: Api, browser: PageSession) -> None:
    task = api.task("with files")
    name = f"p/with files.{task}/artifacts/data/data.csv"
    upload = api.http.post(f"{api.url}/files", headers=api.headers, files={name: ("f", b"a,b\n")}, timeout=30)
    assert upload.status_code == 200
    artifact = {"key": "data", "type": "csv", "mode": "output", "uri": f"http://another.name:8081/files/{quote(name)}"}
    api("tasks.add_or_update_artifacts", task=task, artifacts=[artifact])
    link = re.findall(r'href="(/files/[^"]*)"', browser.get(f"/projects/*/tasks/{task}/artifacts").text)[0]
    answer = browser.get(html.unescape(link))
    assert answer.text == "a,b\n"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_static_files_are_kept_by_browsers_and_need_no_login(api: Api) -> None:
    page = stranger(api, "/login").text
    addresses = re.findall(r'(?:src|href)="(/static/[^"]*)"', page)
    assert len(addresses) >= 3
    for address in addresses:
        answer = stranger(api, address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert stranger(api, "/static/0/page.css").status_code == 404
