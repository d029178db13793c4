"""What starts the ranks of a task, and how many: site, queue, task."""

from __future__ import annotations

import pytest

from hpc_agent.config.many_nodes_settings import ManyNodesSettings
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.launch_plan import LaunchDefaults, Launcher, LaunchPlan, launch_plan
from hpc_agent.errors import ConfigError, ResourceError

SITE = LaunchDefaults()


def test_one_node_is_one_process_unless_the_task_asks_for_ranks() -> None:
    assert launch_plan({}, SITE, nodes=1, gpus=4) is None
    assert launch_plan({"launcher": "none"}, SITE, nodes=1, gpus=4) is None
    assert launch_plan({"launcher": "torchrun"}, SITE, nodes=1, gpus=4) == LaunchPlan(Launcher.TORCHRUN, 1, 4)
    assert launch_plan({"ranks_per_node": "2"}, SITE, nodes=1, gpus=4) == LaunchPlan(Launcher.STEP, 1, 2)
    assert launch_plan({"ranks_per_node": "2"}, LaunchDefaults(Launcher.NONE), nodes=1, gpus=4) is None
    assert launch_plan({}, LaunchDefaults(ranks_per_node=2), nodes=1, gpus=4) is None


@pytest.mark.parametrize(
    ("properties", "defaults", "gpus", "ranks"),
    [
        ({}, SITE, 0, 1),
        ({}, SITE, 4, 4),
        ({}, LaunchDefaults(ranks_per_node=2), 4, 2),
        ({"ranks_per_node": " 3 "}, LaunchDefaults(ranks_per_node=2), 4, 3),
        ({"ranks_per_node": "3"}, LaunchDefaults(Launcher.NONE), 4, 1),
    ],
)
def test_ranks_of_a_node(properties: dict[str, str], defaults: LaunchDefaults, gpus: int, ranks: int) -> None:
    plan = launch_plan(properties, defaults, nodes=2, gpus=gpus)
    assert plan is not None and (plan.ranks_per_node, plan.world_size) == (ranks, 2 * ranks)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("launcher", "slurm", 'launcher is "slurm", expected one of: srun, torchrun, accelerate, mpirun, none'),
        ("ranks_per_node", "many", 'ranks_per_node is "many", expected the number of ranks on each node'),
        ("ranks_per_node", "0", "from 1 to 1024"),
        ("ranks_per_node", "1025", "from 1 to 1024"),
        ("ranks_per_node", "-1", "from 1 to 1024"),
        ("ranks_per_node", "²", "from 1 to 1024"),
    ],
)
def test_a_wrong_property_is_refused_with_the_choices(name: str, value: str, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        launch_plan({name: value}, SITE, nodes=2, gpus=0)


def test_the_queues_launcher_has_precedence_over_the_sites() -> None:
    queues = {"a": QueueSettings(launcher="torchrun"), "b": QueueSettings()}
    settings = HpcSettings(queues=queues, many_nodes=ManyNodesSettings(launcher="mpirun", ranks_per_node=2))
    assert settings.launch_defaults("a") == LaunchDefaults(Launcher.TORCHRUN, 2)
    assert settings.launch_defaults("b") == LaunchDefaults(Launcher.MPIRUN, 2)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ResourceError, match=r'hpc.many_nodes.launcher is "x", expected one of'):
        ManyNodesSettings(launcher="x")
    with pytest.raises(ResourceError, match='launcher is "x", expected one of'):
        QueueSettings(launcher="x")
    with pytest.raises(ConfigError, match="expected a name such as ib0"):
        ManyNodesSettings(interface="ib 0")
    for ports in ("", "20000", "3000-2000", "80-90", "20000-70000", "a-b"):
        with pytest.raises(ConfigError, match="expected two numbers from 1024 to 65535"):
            ManyNodesSettings(ports=ports)
    assert ManyNodesSettings(ports="20000-20000").port_range == range(20000, 20001)
