"""What ``hpc-agent init`` writes is a configuration with which tasks run."""

from __future__ import annotations

from pathlib import Path

from e2e_site import Site

from hpc_agent.domain.status import TaskStatus

GPUS = "import os; print('gpus', os.environ['CUDA_VISIBLE_DEVICES'], 'cpus', os.environ['SLURM_CPUS_PER_TASK'])"


def test_a_task_runs_with_the_configuration_that_init_wrote(site: Site, hpc_cache: Path) -> None:
    conf = site.folder / "own.conf"
    # The servers and keys of the test, without its section hpc.
    [include] = [line for line in site.conf.read_text("utf-8").splitlines() if line.startswith("include")]
    conf.write_text(f"{include}\n", "utf-8")
    folders = ("--root", str(site.folder / "hpc"), "--cache-dir", str(hpc_cache))
    done = site.agent("init", "--yes", "--queue", site.queue, "--partition", "main", *folders, "--file", str(conf))
    assert done.returncode == 0, done.stderr
    assert f"daemon --queue {site.queue} --create-queue --once" in done.stdout
    task = site.bare_task(GPUS)
    site.properties(task, num_gpus="2", gpu_type="h100", time_limit="5")
    site.daemon(CLEARML_CONFIG_FILE=str(conf))
    assert site.wait_for_end(task) is TaskStatus.COMPLETED, site.reason(task)
    [line] = [line for line in site.lines(task) if line.startswith("gpus")]
    words = line.split()
    assert len(words[1].split(",")) == 2 and words[3] == "1"


def test_a_task_that_asks_for_more_than_the_cluster_has_is_refused_by_the_written_rules(site: Site) -> None:
    conf = site.folder / "own.conf"
    [include] = [line for line in site.conf.read_text("utf-8").splitlines() if line.startswith("include")]
    conf.write_text(f"{include}\n", "utf-8")
    done = site.agent("init", "--yes", "--queue", site.queue, "--root", str(site.folder / "hpc"), "--file", str(conf))
    assert done.returncode == 0, done.stderr
    task = site.bare_task("print('never')")
    site.properties(task, num_gpus="5")
    site.daemon(CLEARML_CONFIG_FILE=str(conf))
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "num_gpus is 5" in site.reason(task) and "allows at most 4" in site.reason(task)
