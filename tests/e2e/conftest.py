"""The site of an end-to-end test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site, end_local_jobs
from sbatch_bench import Person

from hpc_agent.api.client import Client
from hpc_agent.config.load import load


@pytest.fixture(scope="session")
def hpc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hpc")


@pytest.fixture(scope="session")
def hpc_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all that run at once: what one has built, the others use, as a group does on a cluster."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hpc-cache"


SETTINGS = """
include "{server}"
hpc {{
    root: "{root}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    term_grace: 5
    lost_after: 20
    resources {{ num_cpus: 1, memory_gb: 1, time_limit: "00:10:00" }}
    queues {{ "{queue}" {{ overrides {{
        num_gpus {{ max: 4 }}, partition {{ choices: [main, none] }}, num_cpus {{}}, time_limit {{}},
        num_nodes {{ max: 3 }}
    }} }} }}
}}
"""


@pytest.fixture
def site(
    clearml_server: Any, slurm_cluster: Any, peers: Path, hpc_root: Path, hpc_cache: Path, tmp_path: Path
) -> Iterator[Site]:
    queue = f"q-{uuid.uuid4().hex[:8]}"
    conf = tmp_path / "clearml.conf"
    conf.write_text(SETTINGS.format(server=clearml_server.conf, root=hpc_root, cache=hpc_cache, queue=queue))
    env = {**slurm_cluster.env, **clearml_server.env, "CLEARML_CONFIG_FILE": str(conf), "HOME": str(tmp_path)}
    env.pop("SLURM_JOB_ID", None)
    client = Client(load(conf, {}).settings.api)
    site = Site(
        env={**env, "SLURM_CONF": slurm_cluster.env["SLURM_CONF"], "PATH": os.environ["PATH"]},
        root=hpc_root,
        peers=peers,
        folder=tmp_path,
        conf=conf,
        queue=queue,
        queue_id=client.queues.resolve(queue, create=True),
        client=client,
    )
    try:
        yield site
    finally:
        site.close()


MACHINE = """
include "{server}"
hpc {{
    scheduler: local
    root: "{root}/{queue}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    term_grace: 5
    local {{ gpus: 4 }}
}}
"""


@pytest.fixture
def machine(clearml_server: Any, hpc_root: Path, hpc_cache: Path, tmp_path: Path) -> Iterator[Site]:
    """A machine without Slurm and with four GPUs, as far as they are counted."""
    queue = f"q-{uuid.uuid4().hex[:8]}"
    conf = tmp_path / "clearml.conf"
    conf.write_text(MACHINE.format(server=clearml_server.conf, root=hpc_root, cache=hpc_cache, queue=queue))
    client = Client(load(conf, {}).settings.api)
    hidden = {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}
    site = Site(
        env={
            **{name: value for name, value in clearml_server.env.items() if name not in hidden},
            "CLEARML_CONFIG_FILE": str(conf),
            "CLEARML_WORKER_NAME": "box",
            "HOME": str(tmp_path),
        },
        root=hpc_root / queue,
        peers=Path(os.environ.get("HPC_AGENT_PEERS", "")) / "bin",
        folder=tmp_path,
        conf=conf,
        queue=queue,
        queue_id=client.queues.resolve(queue, create=True),
        client=client,
    )
    try:
        yield site
    finally:
        site.close()
        end_local_jobs(site)


@pytest.fixture
def person(site: Site) -> Iterator[Person]:
    """A researcher with scripts of their own; no agent serves a queue for them."""
    root = site.folder / "hpc"
    env = {**site.env, "CLEARML_AGENT__hpc__root": f'"{root}"', "CLEARML_AGENT__hpc__poll_interval": "0.5"}
    person = Person(site, root, env)
    try:
        yield person
    finally:
        person.close()
