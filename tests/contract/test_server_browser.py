"""The pages in a real browser: they are read as pages, and no text of a task becomes markup."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capabilities import missing

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "</title><script>document.documentElement.id='taken'</script><img src=x onerror=\"document.body.id='taken'\">"

pytestmark = pytest.mark.browser


@pytest.fixture
def render(api: Any, tmp_path: Path) -> Callable[[str], str]:
    """The document that a browser makes of a page, after its scripts, as HTML; its user has typed the key pair."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing("browser", f"none of {', '.join(PROGRAMS)} is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]

    def dump(path: str) -> str:
        url = f"{api.url}{path}".replace("://", f"://{api.access}:{api.secret}@")
        done = subprocess.run(
            [program, *flags, "--dump-dom", url],
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        if not done.stdout:
            missing("browser", f"{program} does not run here: {done.stderr[-300:]}")
        return done.stdout

    return dump


def test_a_hostile_task_is_shown_as_it_is_written(api: Any, render: Callable[[str], str]) -> None:
    project = api("projects.create", name=f"project {HOSTILE}")["id"]
    task = api.task(f"task {HOSTILE}", project=project, comment=HOSTILE, script={"diff": HOSTILE})
    api("events.add_batch", type="log", task=task, msg=f"line {HOSTILE}", timestamp=1)
    for path in (f"/projects/{project}/experiments/{task}/output/log", "/"):
        document = render(path)
        assert "task &lt;/title&gt;&lt;script&gt;" in document
        assert re.search("<(script|img)", document) is None
        assert re.search("<(html|body)[^>]*taken", document) is None
