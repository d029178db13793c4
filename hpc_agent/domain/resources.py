"""Resource request of a job: site defaults ← queue ← task, each task override checked against the queue's policy."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.duration import format_duration
from hpc_agent.errors import ResourceError


class Resources(msgspec.Struct, frozen=True):
    """Per job, as sbatch means it. ``None`` and ``""`` leave the flag out, so that the partition's default holds."""

    nodes: int = 1
    gpus: int = 0
    """Per node."""
    gpu_type: str = ""
    cpus: int | None = None
    """Per task (Slurm's ``--cpus-per-task``)."""
    memory_mb: int | None = None
    """Per node."""
    time_minutes: int | None = None
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    exclude: str = ""


class Override(msgspec.Struct, frozen=True):
    """Limits of a queue for one property of its tasks. None means no bound but that of ``SMALLEST`` and ``LARGEST``."""

    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None


PROPERTY_FIELDS: Mapping[str, str] = {
    "num_gpus": "gpus",
    "gpu_type": "gpu_type",
    "num_cpus": "cpus",
    "memory_gb": "memory_mb",
    "time_limit": "time_minutes",
    "num_nodes": "nodes",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
}
"""User property of a task → the field it sets."""

SMALLEST: Mapping[str, float] = {"num_gpus": 0, "num_cpus": 1, "memory_gb": 1 / 1024, "time_limit": 1, "num_nodes": 1}
"""Below these Slurm reads an amount as "no limit" (``--mem=0`` is all of a node, ``--time=0`` forever), which is above
any maximum. They hold whatever a queue's configuration says, unless it names the value among its ``choices``."""

LARGEST: Mapping[str, float] = {"time_limit": 365 * 24 * 60}
"""Where a queue sets no maximum. Slurm 22.05 shows a time limit of more than a year as INVALID, and counts minutes in
32 bits: 4294967295 is UNLIMITED."""

DEFAULT_OVERRIDES: Mapping[str, Override] = {
    "num_gpus": Override(),
    "num_cpus": Override(),
    "memory_gb": Override(),
    "time_limit": Override(),
}
"""What tasks may set on a queue whose configuration does not say: amounts, which Slurm's own limits bound."""

_NAMES = re.compile(r"[A-Za-z0-9_.,:+@&|\[\]()*-]{1,500}")
_ONE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,500}")
"""A GPU type is part of a list: ``,`` and ``:`` would ask for more than the type."""
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_DECIMAL = re.compile(r"-?(?:[0-9]{1,9}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:e-[0-9]{1,2})?")
_TIME_LIMIT = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
_SHOWN = 60
"""Characters of a value that a message shows."""


class Policy(msgspec.Struct, frozen=True):
    """The resources of a queue and what its tasks may change."""

    queue: str
    """Its name; empty for what holds in every queue."""
    defaults: Resources = Resources()
    overrides: Mapping[str, Override] = msgspec.field(default_factory=lambda: DEFAULT_OVERRIDES)

    @property
    def _name(self) -> str:
        return f'queue "{self.queue}"' if self.queue else "every queue"

    def resources(self, properties: Mapping[str, str]) -> Resources:
        """The resources of a task with these user properties.

        Properties that name no resource have other uses and are ignored.

        Raises:
            ResourceError: a value is not a number, out of bounds, not among the choices, or may not be set here.
        """
        changes: dict[str, object] = {}
        for name in PROPERTY_FIELDS:
            text = properties.get(name, "").strip()
            if text:
                changes[PROPERTY_FIELDS[name]] = self._value(name, text)
        return replace(self.defaults, **changes)

    def _value(self, name: str, text: str) -> int | str:
        if name not in self.overrides:
            allowed = ", ".join(sorted(self.overrides)) or "none"
            raise ResourceError(
                f'{self._name} does not let a task set {name} (it is "{_shown(text)}" in the task\'s user '
                f"properties); it lets it set: {allowed}"
            )
        rule = self.overrides[name]
        if rule.choices is not None and text not in rule.choices:
            raise ResourceError(f'{name} is "{_shown(text)}", but {self._name} allows: {", ".join(rule.choices)}')
        value = _parse(name, text)
        if isinstance(value, int):
            self._check_bounds(name, text, value, rule)
        return value

    def _check_bounds(self, name: str, text: str, value: int, rule: Override) -> None:
        """``value`` is what Slurm will be asked for, rounded as it counts."""
        minimum = rule.minimum
        if rule.choices is None:
            minimum = max(SMALLEST[name], SMALLEST[name] if minimum is None else minimum)
        maximum = LARGEST.get(name) if rule.maximum is None else rule.maximum
        unit = " minutes" if name == "time_limit" else ""
        if minimum is not None and value < _in_slurms_unit(name, minimum):
            raise ResourceError(f"{name} is {_shown(text)}, but {self._name} allows no less than {minimum:.3g}{unit}")
        if maximum is not None and value > _in_slurms_unit(name, maximum):
            raise ResourceError(f"{name} is {_shown(text)}, but {self._name} allows at most {maximum:.9g}{unit}")


def _in_slurms_unit(name: str, bound: float) -> float:
    """Slurm counts memory in whole MiB: a bound is rounded as the amounts are that it bounds."""
    return memory_mb(bound) if name == "memory_gb" else bound


def memory_mb(gib: float) -> int:
    """GiB as Slurm's whole MiB."""
    return round(gib * 1024)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _parse(name: str, text: str) -> int | str:
    """A number as Slurm will be asked for it (MiB, minutes, a count), or a name."""
    if name == "time_limit":
        return parse_time_limit(text)
    if name == "memory_gb":
        if not _DECIMAL.fullmatch(text):
            raise ResourceError(f'memory_gb is "{_shown(text)}", expected a number of GiB such as 32 or 0.5')
        return memory_mb(float(text))
    if name in SMALLEST:
        if not _WHOLE.fullmatch(text):
            raise ResourceError(f'{name} is "{_shown(text)}", expected a whole number of at most 9 digits')
        return int(text)
    if not (_ONE_NAME if name == "gpu_type" else _NAMES).fullmatch(text):
        raise ResourceError(f'{name} is "{_shown(text)}", expected {_what_a_name_is(name)}')
    return text


def _what_a_name_is(name: str) -> str:
    kind = "one GPU type" if name == "gpu_type" else "a Slurm name"
    return f"{kind} without spaces, quotes or other special characters"


def parse_time_limit(text: str) -> int:
    """Minutes from Slurm's own forms: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``. Seconds round up.

    Raises:
        ResourceError: the text is none of them.
    """
    match = _TIME_LIMIT.fullmatch(text.strip())
    if not match:
        raise ResourceError(
            f'time_limit is "{_shown(text)}", expected minutes or Slurm\'s D-HH:MM:SS, for example 02:30:00'
        )
    days, first, second, third = (int(part) if part else None for part in match.groups())
    assert first is not None
    if days is not None:
        hours, minutes, seconds = first, second or 0, third or 0
    elif third is not None:
        days, hours, minutes, seconds = 0, first, second or 0, third
    else:
        days, hours, minutes, seconds = 0, 0, first, second or 0
    return (days * 24 + hours) * 60 + minutes + (seconds + 59) // 60


def format_time_limit(minutes: int) -> str:
    """``D-HH:MM:SS``, or ``HH:MM:SS`` below a day."""
    return format_duration(minutes * 60)
