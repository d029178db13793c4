"""The layers of ``hpc_agent``: which package may import which. docs/architecture.md shows this table, and
tests/unit/test_layers.py checks the code against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """Packages and modules of ``hpc_agent`` that may import all lower layers, and each other only as stated."""

    packages: tuple[str, ...]
    may_import: str
    """For the reader of the table; the fields below are what is checked."""
    mutual: bool = False
    """Its packages may import each other."""
    within: tuple[tuple[str, str], ...] = ()
    """Imports allowed inside the layer: (importer, imported)."""


BASICS = 2
"""The first layers, which every package may import."""

LAYERS = (
    Layer(
        ("errors", "domain"),
        "the standard library, and msgspec for values (`domain` is pure: no files, no clock)",
        mutual=True,
    ),
    Layer(
        (
            "clock",
            "wake_up",
            "cancellation",
            "retry",
            "process",
            "process_id",
            "child_processes",
            "exec_launcher",
            "rank_launcher",
            "agent_launcher",
            "file_records",
            "file_batches",
            "file_lock",
            "access",
            "redact",
            "secret_values",
            "logs",
            "progress",
            "config",
            "lease",
            "cache_uses",
            "heartbeat",
            "git_credentials",
            "utf8_mode",
            "request_counts",
            "struct_types",
        ),
        "lower layers, each other; `config → schedulers.registry`",
        mutual=True,
    ),
    Layer(
        ("wire", "api", "schedulers", "submission", "containers", "envs", "sources", "telemetry", "runs", "relay"),
        "lower layers; `api → wire`, `telemetry → api`, `telemetry → wire`, `submission → schedulers`",
        within=(("api", "wire"), ("telemetry", "api"), ("telemetry", "wire"), ("submission", "schedulers")),
    ),
    Layer(("image_resolver",), "lower layers: images meet environments here"),
    Layer(
        ("staging", "watcher"),
        "lower layers: sources join images in `staging`, records of jobs join run directories in `watcher`",
    ),
    Layer(("daemon", "executor", "drafts", "bundles", "setup"), "lower layers, never each other"),
    Layer(("tracking",), "lower layers: it reads repositories as `drafts` does, and watches as `executor` does"),
    Layer(
        ("inspection", "doctor"), "lower layers, not each other: they show what `daemon`, `tracking` and `setup` know"
    ),
    Layer(("sessions",), "lower layers: it creates tasks as `drafts` does, and follows them as `inspection` does"),
    Layer(("server",), "layers 0 and 1, and `wire`; imported by `cli/server.py` only"),
    Layer(("cli",), "everything"),
)
"""Lowest first."""

RESTRICTED: Mapping[str, frozenset[str]] = {"server": frozenset({"wire"})}
"""Package → the packages that it may import in addition to the basics, where lower layers are not all open to it."""
SETTINGS_OF_BACKENDS = "hpc_agent.schedulers.registry"
"""The one module of a higher layer that ``config`` imports, for the settings of the scheduler backends. It and the
backends' modules ``settings`` import no more than ``config`` may."""
IMPORTED_BY: Mapping[str, frozenset[str]] = {"server": frozenset({"cli/server.py"})}
"""Package → the only modules outside of it that may import it."""


@dataclass(frozen=True)
class Owner:
    """Modules that reach something outside the program, and the packages that may import them."""

    purpose: str
    modules: tuple[str, ...]
    packages: frozenset[str]


OWNERS = (
    Owner("start programs", ("subprocess", "multiprocessing", "pty"), frozenset({"process"})),
    Owner("call ClearML's API", ("requests",), frozenset({"api"})),
    Owner("answer HTTP", ("starlette", "uvicorn", "h11", "python_multipart"), frozenset({"server"})),
    Owner("open databases", ("sqlite3",), frozenset({"server"})),
    Owner("read the clock", ("time",), frozenset({"clock"})),
    Owner("render templates", ("jinja2",), frozenset({"submission", "server"})),
)
PROCESS_CALLS = ("exec", "fork", "forkpty", "spawn", "posix_spawn", "system", "popen", "startfile")
"""Beginnings of functions of ``os`` that start or replace a process."""
MAY_CALL = frozenset({"process", "exec_launcher", "rank_launcher", "agent_launcher"})
"""Modules that may call them. The launchers run by path: the first in the process that ``process`` started for it, the
others in one that the scheduler started, a rank or a job."""


def table() -> str:
    """The layers as a Markdown table."""
    lines = ["| layer | packages and modules | may import |", "|---|---|---|"]
    for number, layer in enumerate(LAYERS):
        lines.append(f"| {number} | {' '.join(f'`{name}`' for name in layer.packages)} | {layer.may_import} |")
    return "\n".join(lines)


def owners_table() -> str:
    """Who owns which outside interface, as a Markdown table."""
    lines = ["| to | modules | only in |", "|---|---|---|"]
    for owner in OWNERS:
        modules, packages = (
            ", ".join(f"`{name}`" for name in names) for names in (owner.modules, sorted(owner.packages))
        )
        lines.append(f"| {owner.purpose} | {modules} | {packages} |")
    return "\n".join(lines)
