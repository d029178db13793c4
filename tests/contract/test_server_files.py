"""The file server: what is uploaded is what comes back, and no name leads out of the folder."""

from __future__ import annotations

import http.client
import io
import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from clearml_server import ClearmlServer
from http_api import Api, address_of
from waiting import empty, wait_until

Members = tuple[dict[str, str], dict[str, str], dict[str, str], str]
"""See the fixture."""
BOUNDARY = "xxBOUNDARYxx"


def upload(api: Api, name: str, content: bytes = b"content", **options: Any) -> requests.Response:
    return api.raw("/files", "POST", files={name: (name, io.BytesIO(content))}, **options)


def raw_upload(
    api: Api, body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}"
) -> requests.Response:
    return api.raw("/files/", "POST", data=body, headers={**api.headers, "Content-Type": content_type})


def part(name: bytes, content: bytes = b"x") -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n' % (BOUNDARY.encode(), name)
    return head + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    "name", ["p/t.1/artifacts/a/x.json", "/slashes/before", "Größe/mit platz", "a/.hidden", "a%2F"]
)
def test_a_file_comes_back_under_its_name(api: Api, name: str) -> None:
    answer = upload(api, name, b"\x00\xff" * 10)
    assert answer.status_code == 200, answer.text
    assert answer.json() == [name.strip("/")]
    assert api.raw("/files/" + quote(name.strip("/"))).content == b"\x00\xff" * 10


def test_uploading_again_replaces(api: Api) -> None:
    upload(api, "again", b"first")
    upload(api, "again", b"second")
    assert api.raw("/files/again").text == "second"


def test_several_files_travel_in_one_upload(api: Api) -> None:
    files = {name: (name, io.BytesIO(name.encode())) for name in ("several/a", "several/b")}
    assert api.raw("/files", "POST", files=files).json() == ["several/a", "several/b"]
    assert api.raw("/files/several/b").text == "several/b"


ESCAPES = [
    "../evil",
    "a/../../evil",
    "..",
    ".",
    "a/./b",
    "a//b",
    "",
    "/",
    "a/\0b",
    "x" * 300,
    "/".join(["d" * 200] * 30),
]


@pytest.mark.parametrize("name", ESCAPES, ids=range(len(ESCAPES)))
def test_no_uploaded_name_leads_out(api: Api, clearml_server: ClearmlServer, name: str) -> None:
    before = set(clearml_server.data_dir.rglob("evil*"))
    answer = raw_upload(api, part(name.encode()) + END)
    assert answer.status_code == 400
    assert len(answer.text) > 10
    assert set(clearml_server.data_dir.rglob("evil*")) == before
    assert not list((clearml_server.data_dir / "incoming").iterdir())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["../secrets.json", "..%2Fsecrets.json", "%2e%2e/secrets.json", "a/%2e%2e/%2e%2e/server.db", "%00", "//etc/passwd"],
)
def test_no_requested_path_leads_out(api: Api, method: str, path: str) -> None:
    # By hand: client libraries tidy such paths up.
    connection = http.client.HTTPConnection(*address_of(api.url), timeout=10)
    connection.request(method, f"/files/{path}", headers=api.headers)
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"secret" not in answer.read().replace(b"secrets.json", b"")
    connection.close()


def test_links_that_lead_out_are_not_followed(api: Api, clearml_server: ClearmlServer) -> None:
    folder = clearml_server.data_dir / "files" / "linked"
    folder.mkdir(parents=True)
    os.symlink(clearml_server.data_dir, folder / "out")
    os.symlink("/etc/passwd", folder / "passwd")
    assert api.raw("/files/linked/out/secrets.json").status_code == 400
    assert api.raw("/files/linked/passwd").status_code == 400
    assert upload(api, "linked/out/planted").status_code == 400
    assert not (clearml_server.data_dir / "planted").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        part(b"cut/short")[:-3],
        part(b"cut/end") + b"--xx",
        END,
        b"--%s\r\nContent-Disposition: form-data\r\n\r\nx\r\n" % BOUNDARY.encode() + END,
        b"--%s\r\n%s: x\r\n\r\nx\r\n" % (BOUNDARY.encode(), b"H" * 20000) + END,
        b"--%s\r\nContent-Disposition: %s\r\n\r\nx\r\n" % (BOUNDARY.encode(), b"H" * 20000) + END,
        part(b"bad \xff utf-8") + END,
    ],
    ids=range(9),
)
def test_broken_uploads_leave_nothing_behind(api: Api, clearml_server: ClearmlServer, body: bytes) -> None:
    answer = raw_upload(api, body)
    assert answer.status_code == 400, answer.text
    assert not (clearml_server.data_dir / "files" / "cut").exists()
    assert not list((clearml_server.data_dir / "incoming").iterdir())


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 5000]
)
def test_upload_that_is_not_multipart_is_refused_with_reason(api: Api, content_type: str) -> None:
    assert raw_upload(api, part(b"x") + END, content_type).status_code == 400


def test_a_name_inside_a_file_is_refused_and_the_file_named(api: Api) -> None:
    upload(api, "folder/plain")
    answer = upload(api, "folder/plain/in/side")
    assert answer.status_code == 400
    assert "folder/plain is a file, not a folder" in answer.text


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(api: Api, clearml_server: ClearmlServer) -> None:
    connection = _posting(api, 10_000_000)
    connection.send(part(b"abandoned", b"y" * 100_000))
    incoming = clearml_server.data_dir / "incoming"
    wait_until("the upload to begin", lambda: list(incoming.iterdir()))
    connection.close()
    wait_until("its file to go", lambda: list(incoming.iterdir()), empty)
    assert api.raw("/files/abandoned").status_code == 404


@pytest.mark.parametrize(
    ("method", "headers"), [("GET", {}), ("DELETE", {}), ("POST", {}), ("GET", {"Authorization": "Bearer x"})]
)
def test_client_without_credentials_neither_reads_nor_writes(api: Api, method: str, headers: dict[str, str]) -> None:
    upload(api, "private/file")
    answer = api.raw("/files" if method == "POST" else "/files/private/file", method, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert api.raw("/files/private/file").status_code == 200


def test_a_browser_reads_with_the_key_pair_and_changes_nothing_with_it(api: Api) -> None:
    upload(api, "seen/in/browser")
    pair = {"Authorization": api.basic(api.access, api.secret)}
    assert api.raw("/files/seen/in/browser", headers=pair).status_code == 200
    assert api.raw("/files/seen/in/browser", "DELETE", headers=pair).status_code == 401
    assert upload(api, "seen/planted", headers=pair).status_code == 401


def test_a_hostile_page_is_shown_without_any_rights(api: Api) -> None:
    upload(api, "page.html", b"<script>fetch('/')</script>")
    answer = api.raw("/files/page.html")
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.raw("/files/page.html?download").headers["content-disposition"].startswith("attachment")


def test_parts_of_a_file_can_be_asked_for(api: Api) -> None:
    upload(api, "long", bytes(range(100)))
    answer = api.raw("/files/long", headers={**api.headers, "Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, bytes(range(10, 20)))


def test_deleting_removes_the_file_and_folders_left_empty(api: Api, clearml_server: ClearmlServer) -> None:
    upload(api, "gone/deep/file")
    assert api.raw("/files/gone/deep/file", "DELETE").text == "gone/deep/file"
    assert api.raw("/files/gone/deep/file", "DELETE").status_code == 404
    assert not (clearml_server.data_dir / "files" / "gone").exists()


@pytest.fixture
def members(api: Api) -> Members:
    """The headers of two users, and of a job of the first one's task, with that task's id."""

    def login(pair: dict[str, str]) -> dict[str, str]:
        basic = {"Authorization": api.basic(pair["access_key"], pair["secret_key"])}
        return {"Authorization": f"Bearer {api.raw('/auth.login', headers=basic).json()['data']['token']}"}

    users = [api("auth.create_user", name=name)["id"] for name in ("alice", "bob")]
    alice, bob = (login(api("auth.create_credentials", user=user)["credentials"]) for user in users)
    made = api.raw("/tasks.create", "POST", json={"name": "task", "type": "training"}, headers=alice).json()
    task = made["data"]["id"]
    return alice, bob, login(api("auth.create_task_credentials", task=task)["credentials"]), task


def change(api: Api, name: str, headers: dict[str, str]) -> tuple[int, int]:
    """The statuses of replacing and of deleting a file."""
    replaced = upload(api, name, b"replaced", headers=headers).status_code
    return replaced, api.raw(f"/files/{name}", "DELETE", headers=headers).status_code


def test_a_file_is_changed_by_its_uploader_and_administrators_only(api: Api, members: Members) -> None:
    alice, bob, job, _ = members
    assert upload(api, "hers/file", b"original", headers=alice).status_code == 200
    for other in (bob, job):
        assert change(api, "hers/file", other) == (403, 403)
        assert api.raw("/files/hers/file", headers=other).content == b"original"
    assert change(api, "hers/file", alice) == (200, 200)
    upload(api, "hers/file", headers=alice)
    assert change(api, "hers/file", api.headers) == (200, 200)


def test_what_lies_in_a_tasks_folder_is_also_its_owners_and_its_jobs(api: Api, members: Members) -> None:
    alice, bob, job, task = members
    name = f"project/t.{task}/artifacts/a/file"
    for changer in (job, alice, api.headers):
        upload(api, name)
        assert change(api, name, bob) == (403, 403)
        assert change(api, name, changer) == (200, 200)


class HalfAnUpload:
    """An upload that waits before its last bytes."""

    def __init__(self, api: Api, name: str, headers: Mapping[str, str]) -> None:
        body, self._rest = part(name.encode(), b"late")[:-1], b"\n" + END
        where = urlsplit(api.url)
        assert where.hostname
        self._connection = socket.create_connection((where.hostname, where.port or 80), timeout=20)
        head = (
            f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            f"Content-Length: {len(body) + len(self._rest)}\r\n\r\n"
        )
        self._connection.sendall(head.encode() + body)

    def begun(self, clearml_server: ClearmlServer) -> HalfAnUpload:
        wait_until("the upload to begin", lambda: list((clearml_server.data_dir / "incoming").iterdir()))
        return self

    def finish(self) -> int:
        with self._connection:
            self._connection.sendall(self._rest)
            return int(self._connection.recv(4096).split()[1])


def test_an_upload_held_open_does_not_replace_what_came_meanwhile(
    api: Api, clearml_server: ClearmlServer, members: Members
) -> None:
    alice, bob, *_ = members
    held = HalfAnUpload(api, "contested", bob).begun(clearml_server)
    assert upload(api, "contested", b"hers", headers=alice).status_code == 200
    assert held.finish() == 403
    assert api.raw("/files/contested").content == b"hers"
    assert upload(api, "contested", b"hers again", headers=alice).status_code == 200


def test_an_upload_ends_with_the_key_that_it_was_begun_with(api: Api, clearml_server: ClearmlServer) -> None:
    user = api("auth.create_user", name="leaver")["id"]
    pair = api("auth.create_credentials", user=user)["credentials"]
    basic = {"Authorization": api.basic(pair["access_key"], pair["secret_key"])}
    token = api.raw("/auth.login", headers=basic).json()["data"]["token"]
    held = HalfAnUpload(api, "after all", {"Authorization": f"Bearer {token}"}).begun(clearml_server)
    api("auth.revoke_credentials", access_key=pair["access_key"])
    assert held.finish() == 401
    assert api.raw("/files/after%20all").status_code == 404


def test_a_file_of_an_upload_that_breaks_off_behind_it_is_its_uploaders(api: Api, members: Members) -> None:
    alice, *_ = members
    headers = {**alice, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = part(b"first of two") + part(b"../second")
    assert api.raw("/files/", "POST", data=body + END, headers=headers).status_code == 400
    assert upload(api, "first of two", headers=alice).status_code == 200


def test_a_job_whose_task_has_ended_uploads_nothing(api: Api, members: Members) -> None:
    *_, job, task = members
    assert upload(api, "while it runs", headers=job).status_code == 200
    api("tasks.failed", task=task, force=True)
    answer = upload(api, "afterwards", headers=job)
    assert (answer.status_code, "has ended" in answer.text) == (403, True)


def test_every_answer_forbids_content_sniffing(api: Api) -> None:
    upload(api, "some/file")
    with socket.create_connection(address_of(api.url), timeout=10) as connection:
        connection.sendall(b"no HTTP at all\r\n\r\n")
        assert b"nosniff" in connection.recv(4096)
    for path, method in (
        ("/", "GET"),
        ("/", "DELETE"),
        ("/files/none", "GET"),
        ("/files/../x", "GET"),
        ("/files/some/file", "GET"),
        ("/projects/a/b/c", "GET"),
        ("/no.such", "GET"),
        ("/tasks.get_all", "GET"),
        ("/tasks.get_by_id", "GET"),
    ):
        for headers in (api.headers, {}):
            answer = api.raw(path, method, headers=headers)
            assert answer.headers["x-content-type-options"] == "nosniff", (path, method)


def test_large_files_do_not_fill_the_memory(api: Api, clearml_server: ClearmlServer) -> None:
    size, piece = 200 * 2**20, b"z" * 2**20
    head, tail = part(b"large")[:-3], b"\r\n" + END
    before = _peak_memory(clearml_server.pid)
    connection = _posting(api, len(head) + size + len(tail))
    connection.send(head)
    for _ in range(size // len(piece)):
        connection.send(piece)
    connection.send(tail)
    assert connection.getresponse().status == 200
    connection.close()
    assert (clearml_server.data_dir / "files" / "large").stat().st_size == size
    assert _peak_memory(clearml_server.pid) - before < 30 * 1024


def _posting(api: Api, length: int) -> http.client.HTTPConnection:
    """A connection on which an upload of so many bytes has begun."""
    connection = http.client.HTTPConnection(*address_of(api.url), timeout=30)
    connection.putrequest("POST", "/files")
    connection.putheader("Authorization", api.headers["Authorization"])
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    return connection


def _peak_memory(pid: int) -> int:
    """KiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
