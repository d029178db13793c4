"""What the driver says when parts of a real Slurm fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from slurm_site import SlurmSite, recorded
from waiting import empty, wait_until

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState, LimitReached, OutcomeUnknown, Refused, unconfirmed_record
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

pytestmark = pytest.mark.slurm


@pytest.fixture
def site(slurm_cluster: Any, tmp_path: Path) -> Iterator[SlurmSite]:
    site = SlurmSite(slurm_cluster, tmp_path)
    yield site
    slurm_cluster.start()
    site.scheduler.cancel(site.jobs)


def test_without_a_controller_nothing_is_known_and_then_all_is_again(site: SlurmSite) -> None:
    job = site.submit("sleep 300")
    site.wait_for_start(job)
    site.cluster.stop("slurmctld")
    with pytest.raises(SchedulerUnavailableError, match="Unable to contact slurm controller"):
        site.scheduler.live_jobs()
    assert isinstance(site.scheduler.submit(site.request("true")), OutcomeUnknown)
    site.cluster.start()
    assert site.state(job) is JobState.RUNNING


def test_an_sbatch_that_timed_out_has_queued_its_job_which_is_found_by_name(site: SlurmSite) -> None:
    pid = int((site.cluster.dir / "run" / "slurmctld.mark").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = site.scheduler.submit(site.request("true", name="timed_out"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert isinstance(answer, OutcomeUnknown)
    assert "Socket timed out" in answer.message
    wait_until("the job to be found", lambda: site.scheduler.find("timed_out", site.before))


def test_without_slurmdbd_the_controllers_memory_has_the_verdict(site: SlurmSite) -> None:
    site.cluster.stop("slurmdbd")
    job = site.submit("exit 3")
    forgotten = JobId("99999")
    wait_until("the job to leave", lambda: site.live(job), empty)
    records = site.scheduler.records({job: site.before, forgotten: site.before})
    assert (records[job].state, records[job].exit_code) == (JobState.FAILED, 3)
    assert records[forgotten] == unconfirmed_record(forgotten)
    site.cluster.start()
    wait_until("accounting to answer", lambda: site.scheduler.records({forgotten: site.before}), empty)
    assert site.record(job).state is JobState.FAILED


@pytest.mark.root
def test_a_job_in_a_hidden_partition_is_seen_by_its_owner(site: SlurmSite) -> None:
    """squeue shows it to root in any case."""
    look = (
        "from hpc_agent.schedulers.slurm.settings import SlurmSettings\n"
        "from hpc_agent.schedulers.slurm.driver import SlurmScheduler\n"
        "print([job.id for job in SlurmScheduler(SlurmSettings()).live_jobs()])\n"
    )
    # Who may read this test's files anyway.
    may = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    # Not "nobody": the accounting of 26.05 takes that for no user.
    as_another = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups", *may]
    site.cluster.run("sacctmgr", "-i", "add", "user", "games", "account=lab")
    site.cluster.run("scontrol", "update", "partition=main", "hidden=yes")
    job = ""

    def is_submitted() -> bool:
        nonlocal job
        submit = ["sbatch", "--parsable", "--hold", "--chdir=/", "--output=/dev/null", "--wrap=sleep 300"]
        with suppress(subprocess.CalledProcessError):  # slurmctld hears of the new user a moment later
            job = site.cluster.run(*as_another, *submit).strip()
        return bool(job)

    try:
        wait_until("the job to be taken", is_submitted)
        assert site.cluster.run(*as_another, "squeue", "--noheader") == ""
        assert site.cluster.run(*as_another, sys.executable, "-c", look) == f"['{job}']\n"
    finally:
        site.cluster.run("scontrol", "update", "partition=main", "hidden=no")
        site.cluster.run("scancel", job or "--user=games")


@pytest.mark.parametrize("accounting", ["none", "auto"])
def test_a_site_without_accounting_is_asked_for_the_jobs_of_the_last_minutes(
    site: SlurmSite, accounting: Any, tmp_path: Path
) -> None:
    conf = tmp_path / "conf" / "slurm.conf"
    conf.parent.mkdir()
    conf.write_text(re.sub(r"AccountingStorage.*\n", "", (site.cluster.dir / "slurm.conf").read_text()))
    (conf.parent / "gres.conf").write_text((site.cluster.dir / "gres.conf").read_text())
    name = f"unaccounted_{accounting}"
    job = site.submit("exit 4", name=name)
    environ = {**site.cluster.env, "SLURM_CONF": str(conf)}
    scheduler = SlurmScheduler(SlurmSettings(accounting=accounting), environ=environ)
    record = recorded(scheduler, job, site.before)
    assert (record.name, record.state, record.exit_code) == (name, JobState.FAILED, 4)
    assert scheduler.find(name, site.before) == job
    assert scheduler.find("unheard_of", site.before) is None


def test_a_requeued_job_lives_on_under_its_id_and_has_no_verdict(site: SlurmSite) -> None:
    job = site.submit("sleep 300")
    site.wait_for_start(job)
    site.cluster.run("scontrol", "requeue", job)
    wait_until("its restart", lambda: site.live(job), lambda live: live and live.restarts == 1)
    assert not any(record.state.is_final for record in site.scheduler.records({job: site.before}).values())
    site.wait_for_start(job)
    assert not any(record.state.is_final for record in site.scheduler.records({job: site.before}).values())


def test_a_lost_node_ends_a_job_that_may_not_be_requeued(site: SlurmSite) -> None:
    job = site.submit("sleep 300", "--no-requeue", "--nodelist=n3")
    site.wait_for_start(job)
    site.cluster.run("scontrol", "update", "nodename=n3", "state=down", "reason=test")
    try:
        record = site.record(job)
    finally:
        wait_until("n3 to be back", lambda: resumed(site))
    assert record.state is JobState.NODE_FAIL
    assert record.state.may_be_requeued
    assert record.nodes == "n3"


def resumed(site: SlurmSite) -> bool:
    """Bring n3 back: until Slurm has set it down, and while its jobs end, it may refuse to."""
    state: str = site.cluster.run("sinfo", "-h", "-n", "n3", "-p", "main", "-o", "%T").strip()
    if state.startswith("down"):
        with suppress(subprocess.CalledProcessError):
            site.cluster.run("scontrol", "update", "nodename=n3", "state=resume")
    return state.startswith(("idle", "mixed"))


def test_a_preempted_job_comes_back_or_is_recorded(site: SlurmSite) -> None:
    comes_back = site.submit("sleep 300", "--partition=scavenge", "--gres=gpu:2", "--nodelist=n2", name="back")
    ends = site.submit(
        "sleep 300", "--partition=scavenge", "--no-requeue", "--gres=gpu:2", "--nodelist=n2", name="ends"
    )
    site.wait_for_start(comes_back)
    site.wait_for_start(ends)
    site.submit("sleep 1", "--partition=urgent", "--gres=gpu:4", "--nodelist=n2", name="urgent")
    assert site.record(ends).state is JobState.PREEMPTED
    wait_until("its restart", lambda: site.live(comes_back), lambda live: live and live.restarts == 1)
    # Until it runs again sacct may show the end that preemption made: no verdict while squeue has the job.
    records = site.scheduler.records({comes_back: site.before}).values()
    assert all(record.state.may_be_requeued or not record.state.is_final for record in records)


def test_a_full_qos_means_later_and_an_unknown_one_never(site: SlurmSite) -> None:
    site.submit("sleep 300", "--qos=single")
    later = site.scheduler.submit(site.request("true", "--qos=single"))
    assert isinstance(later, LimitReached)
    assert "QOSMaxSubmitJobPerUserLimit" in later.message
    never = site.scheduler.submit(site.request("true", "--qos=nope"))
    assert isinstance(never, Refused)
    assert "Invalid qos specification" in never.message


def test_array_elements_are_jobs_of_their_own(site: SlurmSite) -> None:
    array = site.submit("exit $SLURM_ARRAY_TASK_ID", "--array=0-1")
    elements = {JobId(f"{array}_{index}"): site.before for index in range(2)}
    for element in elements:
        recorded(site.scheduler, element, site.before)
    records = site.scheduler.records(elements)
    assert [records[job].exit_code for job in elements] == [0, 1]


def test_records_are_asked_in_universal_time(site: SlurmSite) -> None:
    """Whatever the time zone of daemon and site, the hour before a submission is the hour before it."""
    job = site.submit("true")
    scheduler = SlurmScheduler(SlurmSettings(), environ={**site.cluster.env, "TZ": "Pacific/Kiritimati"})
    submitted = recorded(scheduler, job, site.before).submitted
    assert submitted is not None
    assert abs(submitted - site.before) < timedelta(minutes=2)
