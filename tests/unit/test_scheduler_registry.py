"""The registry of backends: the choice of ``hpc.scheduler: auto``, and the names that backends have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hpc_agent.config.settings import HpcSettings
from hpc_agent.schedulers import backends, registry

BATCH_SYSTEMS = [registry.load(name) for name in registry.BATCH_SYSTEMS]


@pytest.mark.parametrize("name", registry.BACKENDS)
def test_backend_has_the_name_of_its_entry(name: str) -> None:
    backend = registry.load(name)
    assert backend.name == name
    assert backend.is_batch_system is (name in registry.BATCH_SYSTEMS)


@dataclass
class Commands:
    """Which batch systems have their commands on this machine."""

    monkeypatch: pytest.MonkeyPatch

    def install(self, *names: str) -> None:
        for backend in BATCH_SYSTEMS:
            found = backend.name in names
            self.monkeypatch.setattr(type(backend), "is_installed", lambda _, found=found: found)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def test_auto_takes_this_machine_where_no_batch_system_is_installed(commands: Commands) -> None:
    commands.install()
    assert backends.choose(HpcSettings()).name == registry.LOCAL


@pytest.mark.parametrize("name", registry.BATCH_SYSTEMS)
def test_auto_takes_the_batch_system_that_is_installed(commands: Commands, name: str) -> None:
    commands.install(name)
    assert backends.choose(HpcSettings()).name == name


def test_auto_takes_the_first_of_several_batch_systems(commands: Commands) -> None:
    commands.install(*registry.BATCH_SYSTEMS)
    assert backends.choose(HpcSettings()).name == registry.BATCH_SYSTEMS[0]


@pytest.mark.parametrize("name", registry.BACKENDS)
def test_named_backend_is_taken_wherever_it_is_installed(commands: Commands, name: Any) -> None:
    commands.install()
    assert backends.choose(HpcSettings(scheduler=name)).name == name
