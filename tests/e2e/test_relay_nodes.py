"""Compute nodes without a way to the ClearML server: jobs of a real Slurm in a network namespace of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from e2e_site import Site
from node_network import NodeNetwork, node_network
from sbatch_bench import Person
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers, pytest.mark.namespaces, pytest.mark.root]

REPORTS = """
import os, socket, sys, time
from clearml import Task
try:
    socket.create_connection(({host!r}, {port}), 5)
    print("the server is reached directly", flush=True)
except OSError as error:
    print("no direct way:", error, flush=True)
task = Task.init()
task.get_logger().report_scalar("loss", "train", 0.5, 1)
task.upload_artifact("notes", artifact_object={{"a": 1}}, wait_on_upload=True)
print("begun", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.2)
print("over", flush=True)
"""


@pytest.fixture(params=["network", "files"])
def isolated(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """The site, its nodes on a network of their own."""
    with ExitStack() as stack:
        network = stack.enter_context(node_network(reaches_login=request.param == "network"))
        configure(site, network, request.param)
        yield site


def configure(site: Site, network: NodeNetwork, through: str) -> None:
    command = json.dumps(network.agent_command)
    site.configure(f'hpc {{ agent_command: {command}\nrelay {{ through: {through}, host: "{network.login}" }} }}')


def reporting_task(site: Site) -> Any:
    server = urlsplit(site.client.session.settings.api_server)
    text = REPORTS.format(host=server.hostname, port=server.port, go=str(site.folder / "go"))
    return site.script_task(text)


def test_sdk_console_and_files_reach_the_server_through_the_daemon(isolated: Site) -> None:
    site = isolated
    task = reporting_task(site)
    daemon = site.daemon()
    site.begun(task)
    assert any(line.startswith("no direct way:") for line in site.lines(task))
    # What runs does not need the daemon that it began with.
    daemon.terminate()
    daemon.wait(120)
    site.daemon(log="second.log")
    (site.folder / "go").touch()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    seen = site.lines(task)
    assert seen.count("begun") == 1 and seen.count("over") == 1
    assert site.read_back(task)["scalars"]["loss"]["train"]["y"] == [0.5]
    [artifact] = site.client.tasks.get_object(task)["execution"]["artifacts"]
    assert artifact["uri"].startswith(site.client.session.settings.files_server)


def test_an_abort_reaches_a_task_that_only_the_daemon_connects(isolated: Site) -> None:
    site = isolated
    task = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(3000)\n")
    site.daemon()
    site.begun(task)
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.reason(task) == "aborted by its user"


def test_a_staging_job_reads_its_task_through_the_daemon(isolated: Site) -> None:
    site = isolated
    task = site.bare_task("print('ran')\n")
    site.daemon(CLEARML_AGENT__hpc__envs__build_on="job")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "staging.submitted" in (site.folder / "daemon.log").read_text()


def test_the_console_of_a_script_arrives_while_it_runs_through_what_follows_it(isolated: Site, person: Person) -> None:
    go = person.site.folder / "go"
    person.script(f"#!/bin/bash\necho begun\nuntil [ -e {go} ]; do sleep 0.2; done\necho end\n")
    job = person.sbatch("train.sh").job
    task = person.task(job)
    wait_until("its console while it runs", lambda: isolated.console(task), contains("begun\n"))
    # Only the agent in the job reports its job as a worker.
    wait_until("its worker", lambda: [w for w in isolated.client.workers.all() if w["id"].endswith(f":slurm:{job}")])
    go.touch()
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert isolated.console(task) == "begun\nend\n"


def test_doctor_relays_for_its_jobs_where_no_daemon_runs(isolated: Site) -> None:
    answer = isolated.agent("doctor", "--jobs", "--queue", isolated.queue, "--json", timeout=400)
    checks = json.loads(answer.stdout)["checks"]
    [server] = [line for line in checks if line["subject"].endswith("artition") and line["name"] == "server"]
    assert server["status"] == "ok", server


def test_without_the_relay_such_a_node_cannot_claim_its_task(site: Site) -> None:
    """What the tests above do without is not there by accident."""
    with node_network(reaches_login=False) as network:
        configure(site, network, "none")
        task = site.bare_task("print('ran')\n")
        site.daemon()
        wait_until("its job", lambda: site.jobs(task))
        outputs = site.root / "runs" / task
        wait_until(
            "the agent's words",
            lambda: "".join(path.read_text(errors="replace") for path in outputs.glob("*/job.out")),
            contains("refused"),
        )
        assert site.status(task) is TaskStatus.QUEUED
        for job in site.jobs(task):
            site.slurm("scancel", job)


def test_a_relay_without_an_address_is_refused_at_the_start(site: Site) -> None:
    site.configure("hpc.relay.through: network")
    answer = site.agent("daemon", "--queue", site.queue, "--foreground")
    assert answer.returncode == 2
    assert 'through is "network", and host is empty' in answer.stderr


OF_RANKS = """
import os
from clearml import Task
task = Task.init()
print("proxy", os.environ["RANK"], os.environ["http_proxy"].rpartition(":")[2], flush=True)
task.get_logger().report_scalar("loss", "rank " + os.environ["RANK"], 0.5, 1)
task.flush(wait_for_uploads=True)
"""


@pytest.mark.parametrize("through", ["network", "files"])
def test_each_node_of_many_has_a_proxy_of_its_own(site: Site, through: str) -> None:
    """Only the daemon knows the server's name here: the steps of a job on many nodes need Slurm's network."""
    server = urlsplit(site.client.session.settings.api_server)
    files = urlsplit(site.client.session.settings.files_server)
    hosts = site.folder / "hosts"
    hosts.write_text(f"{Path('/etc/hosts').read_text(encoding='utf-8')}\n{server.hostname} relayed.example\n")
    reached_directly = site.conf.read_text()
    task = site.script_task(OF_RANKS)
    site.properties(task, num_nodes="2", ranks_per_node="2", num_cpus="2")
    site.configure(
        f'hpc.relay {{ through: {through}, host: "127.0.0.1" }}\n'
        f'api {{ api_server: "http://relayed.example:{server.port}"\nweb_server: ${{api.api_server}}\n'
        f'files_server: "http://relayed.example:{files.port}" }}'
    )
    as_login_node = ("unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh")
    site.daemon(under=as_login_node)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    site.conf.write_text(reached_directly)
    lines = [line.rpartition("proxy ")[2].split() for line in site.lines(task) if "proxy " in line]
    ports = {int(rank): port for rank, port in lines}
    assert sorted(ports) == [0, 1, 2, 3]
    assert ports[0] == ports[1] != ports[2] == ports[3]
    assert sorted(site.read_back(task)["scalars"]["loss"]) == [f"rank {rank}" for rank in range(4)]
