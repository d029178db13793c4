"""Slurm's words, times and the short answers of its other commands."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from captured_slurm import OUR_JOB, VERSIONS, captured, names

from hpc_agent.domain.job import JobState
from hpc_agent.schedulers.slurm import answers, commands

IN_SQUEUE = datetime(2026, 11, 20, 12, 0, 7, tzinfo=timezone.utc)


def test_hidden_partitions_are_asked_for() -> None:
    """Without --all squeue exits 0 and lists nothing of them, except to root; checked on 22.05."""
    assert "--all" in commands.squeue("1000", "|d|")
    assert "--all" in commands.squeue("1000", "|d|", ended=True, name=OUR_JOB)


LIVE_WORDS = (
    "PENDING RUNNING SUSPENDED COMPLETING CONFIGURING EXPEDITING LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL REQUEUED "
    "REQUEUE_FED REQUEUE_HOLD RESIZING RESV_DEL_HOLD SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED UPDATE_DB"
)
FINAL_WORDS = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT"


@pytest.mark.parametrize("word", LIVE_WORDS.split())
def test_no_state_of_a_live_job_is_final(word: str) -> None:
    assert answers.state(word) is not JobState.UNKNOWN
    assert not answers.state(word).is_final


@pytest.mark.parametrize("word", FINAL_WORDS.split())
def test_every_final_state_is_final(word: str) -> None:
    assert answers.state(word).is_final


@pytest.mark.parametrize("word", ["HIBERNATING", "", "completed?", "_name_", "mro"])
def test_an_unknown_state_is_not_final(word: str) -> None:
    assert answers.state(word) is JobState.UNKNOWN
    assert not answers.state(word).is_final


@pytest.mark.parametrize("word", ["CANCELLED by 1000", "CANCELLED+"])
def test_cancelled_may_carry_more(word: str) -> None:
    assert answers.state(word) is JobState.CANCELLED


def test_times_are_read_as_utc() -> None:
    assert answers.time("1795176007") == IN_SQUEUE
    assert answers.time("2026-11-20T12:00:07") == IN_SQUEUE
    assert [answers.time(text) for text in ("N/A", "NONE", "None", "Unknown", "")] == [None] * 5


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in VERSIONS for name in names(version, "scancel_")]
)
def test_scancel_fails_only_when_no_cluster_took_the_request(version: str, name: str) -> None:
    said = captured(version, name)
    assert answers.cancelled(said.returncode, said.stderr) == (not name.endswith("_down"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_cluster_is_named_in_its_configuration(version: str) -> None:
    config = answers.parse_config(captured(version, "scontrol_config").stdout)
    assert config["ClusterName"] == "hpcagent"
    assert config["MinJobAge"] == "300 sec"
