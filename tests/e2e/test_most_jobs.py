"""A task that ``max_jobs`` holds back says so, on its page and in ``hpc-agent why``."""

from __future__ import annotations

import pytest
from e2e_site import UNTIL_GO, Site
from served_queues import serve
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    ("queue", "environ", "sentence"),
    [
        ("max_jobs: 1", {}, "the scheduler has 1 job of this queue, the most at a time (max_jobs)"),
        (
            "",
            {"CLEARML_AGENT__hpc__max_jobs": "1"},
            "the scheduler has 1 job of all queues, the most at a time (hpc.max",
        ),
    ],
)
def test_a_task_that_waits_for_others_of_its_queue(
    site: Site, queue: str, environ: dict[str, str], sentence: str
) -> None:
    served = serve(site, {"q": queue}, **environ)
    go = site.folder / "go"
    first = served.task("q", UNTIL_GO.format(go=str(go)))
    site.begun(first)
    second, third = (served.task("q", "print(1)") for _ in range(2))
    wait_until("its message", lambda: site.message(second), contains(sentence))
    assert site.message(third) == "" and site.jobs(second) == []
    assert sentence in " ".join(site.agent("why", second, COLUMNS="300").stdout.split())
    go.touch()
    assert {site.wait_for_end(task) for task in (first, second, third)} == {TaskStatus.COMPLETED}
