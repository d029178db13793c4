"""The console of a person's own job, wherever and however the job writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sbatch_bench import Person
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

PYTHON = "#!/usr/bin/env python3\nimport time\nprint('begun', flush=True)\ntime.sleep(3)\nprint('end')\n"
"""No bash reads our lines: the output is followed from outside, by its name."""


@pytest.mark.parametrize("name", ["o-%N-%4j.log", "o-%s-%t.%J", "o%%j", "\\o-%N"])
def test_a_file_with_patterns_in_its_name_is_the_console(name: str, person: Person) -> None:
    person.script(PYTHON)
    job = person.sbatch("-o", name, "train.sh").job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert person.site.console(person.task(job)) == "begun\nend\n"


def test_a_file_that_cannot_be_opened_is_named_with_what_is_missing(person: Person) -> None:
    person.script(PYTHON)
    job = person.sbatch("-o", "logs/x-%j.log", "train.sh").job
    status, reason = person.wait_for_end(job)
    logs = person.site.folder / "logs"
    assert status is TaskStatus.FAILED
    assert reason.endswith(f"its output file {logs}/x-{job}.log could not be opened: there is no folder {logs}")


def test_a_script_that_empties_its_own_output_loses_nothing_that_it_prints_later(person: Person) -> None:
    wait = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.1)\n"
    person.script(f"#!/usr/bin/env python3\n{wait}os.truncate(1, 0)\nfor n in range(20): print('after', n)\n")
    job = person.sbatch("-o", "own.log", "train.sh").job
    task = person.task(job)
    wait_until("its console while it runs", lambda: person.site.console(task), contains("begun"))
    (person.site.folder / "go").touch()
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert [f"after {n}" for n in range(20)] == person.site.console(task).splitlines()[-20:]


def test_a_file_that_is_gone_at_the_end_is_said_in_the_console(person: Person) -> None:
    person.script(PYTHON + "import os\nos.remove('own.log')\n")
    job = person.sbatch("-o", "own.log", "train.sh").job
    person.wait_for_end(job)
    console = person.site.console(person.task(job))
    assert f"{Path(person.site.folder) / 'own.log'} is not shown here" in console
