"""Offline sessions that are damaged are refused before anything is created; addresses move with their files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.domain.ids import TaskId
from hpc_agent.drafts.offline_import import open_session
from hpc_agent.errors import InputError
from hpc_agent.wire import offline_run as wire

TASK = {"id": "offline-1", "name": "n", "type": "testing", "project_name": "p", "offline_folder": "/far/offline-1"}


def session(folder: Path, **files: str) -> Path:
    """A zip file with these files, ``task.json`` unless another is given; dots in names are double underscores."""
    path = folder / "session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {"task__json": json.dumps(TASK), **files}.items():
            archive.writestr(name.replace("__", "."), text)
    return path


def test_a_session_is_read_from_zip_and_folder(tmp_path: Path) -> None:
    path = session(tmp_path, log__jsonl='[{"task": "offline-1", "msg": "a"}]\n\n[]\n', metrics__jsonl='[{"iter": 1}]')
    with open_session(path) as run:
        assert (run.id, run.project, run.warnings) == ("offline-1", "p", ())
        assert list(run.batches()) == [[{"task": "offline-1", "msg": "a"}], [], [{"iter": 1}]]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    with open_session(tmp_path / "folder") as run:
        assert len(list(run.batches())) == 3
    assert not run.warnings


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"task__json": "{"}, r"task\.json cannot be read"),
        ({"task__json": "[]"}, "names no project"),
        ({"task__json": "{}"}, "names no project"),
        ({"log__jsonl": "[]\n[{"}, r"log\.jsonl of the offline session, line 2, is damaged"),
        ({"metrics__jsonl": '{"a": 1}'}, r"metrics\.jsonl of the offline session, line 1, is not a list"),
        ({"metrics__jsonl": "[1]"}, "is not a list"),
    ],
)
def test_damage_is_named(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words), open_session(session(tmp_path, **files)):
        pass


def test_a_cut_zip_file_is_refused(tmp_path: Path) -> None:
    path = session(tmp_path, log__jsonl="[]" * 1000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable zip file"), open_session(path):
        pass


def test_models_that_are_left_out_cause_a_warning(tmp_path: Path) -> None:
    task = json.dumps({**TASK, "offline_output_models": [{}, {}]})
    with open_session(session(tmp_path, task__json=task)) as run:
        assert run.warnings == ("2 output models of the offline run are not imported",)


def moved(address: str) -> str:
    return address.replace("/far/offline-1/data/", "http://files/")


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        ({"type": "log", "msg": "x", "method": "get"}, {"type": "log", "msg": "x"}),
        (
            {"key": "p/n.offline-1/a", "url": "/far/offline-1/data/a"},
            {"key": "P/n.offline-1/a", "url": "http://files/a"},
        ),
        ({"key": "k", "url": "https://elsewhere/a"}, {"key": "K", "url": "https://elsewhere/a"}),
        ({"plot_str": '{"layout": {"images": "broken"'}, {"plot_str": '{"layout": {"images": "broken"'}),
        (
            {"plot_str": json.dumps({"layout": {"images": [{"source": "/far/offline-1/data/i.png"}]}})},
            {"plot_str": json.dumps({"layout": {"images": [{"source": "http://files/i.png"}]}})},
        ),
    ],
)
def test_events_move_to_the_new_task(event: dict[str, Any], changed: dict[str, Any]) -> None:
    assert wire.moved_event(event, TaskId("t"), str.capitalize, moved) == {**changed, "task": "t"}


def test_task_object_is_imported_without_foreign_fields() -> None:
    data = {**TASK, "output": {"destination": "s3://b"}, "execution": {"artifacts": [{"uri": "u"}], "model": ""}}
    assert wire.new_task_fields(data, "project id") == {
        "name": "n",
        "type": "testing",
        "project": "project id",
        "system_tags": ["development"],
        "execution": {"model": ""},
        "output_dest": "s3://b",
    }
    assert wire.artifact_fields(data, str.upper) == {"execution": {"artifacts": [{"uri": "U"}], "model": ""}}
    assert wire.artifact_fields(TASK, str.upper) == {}
