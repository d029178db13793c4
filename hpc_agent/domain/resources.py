"""What a job asks Slurm for: site defaults ← queue ← task, each task override checked against the queue's policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from hpc_agent.errors import ResourceError


@dataclass(frozen=True)
class Resources:
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


@dataclass(frozen=True)
class Override:
    """What a queue lets a task set for one property. None means no bound."""

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

DEFAULT_OVERRIDES: Mapping[str, Override] = {
    "num_gpus": Override(minimum=0),
    "num_cpus": Override(minimum=1),
    "memory_gb": Override(minimum=0.001),
    "time_limit": Override(),
}
"""What tasks may set on a queue whose configuration does not say: amounts, which Slurm's own limits bound."""

_WORD = re.compile(r"^[A-Za-z0-9_.,:+@&|\[\]()*-]*$")


@dataclass(frozen=True)
class Policy:
    """The resources of a queue and what its tasks may change."""

    queue: str
    defaults: Resources = Resources()
    overrides: Mapping[str, Override] = field(default_factory=lambda: DEFAULT_OVERRIDES)

    def resources(self, properties: Mapping[str, str]) -> Resources:
        """The resources of a task with these user properties.

        Properties that name no resource are somebody else's and ignored.

        Raises:
            ResourceError: a value is no number, out of bounds, not among the choices, or may not be set here.
        """
        changes: dict[str, object] = {}
        for name in PROPERTY_FIELDS:
            text = properties.get(name, "").strip()
            if text:
                changes[PROPERTY_FIELDS[name]] = self._value(name, text)
        return replace(self.defaults, **changes)  # type: ignore[arg-type]

    def _value(self, name: str, text: str) -> object:
        if name not in self.overrides:
            allowed = ", ".join(sorted(self.overrides)) or "none"
            raise ResourceError(
                f'queue "{self.queue}" does not let a task set {name} (it is "{text}" in the task\'s user properties); '
                f"it lets it set: {allowed}"
            )
        rule = self.overrides[name]
        if rule.choices is not None and text not in rule.choices:
            raise ResourceError(f'{name} is "{text}", but queue "{self.queue}" allows: {", ".join(rule.choices)}')
        value = _parse(name, text)
        amount = value / 1024 if name == "memory_gb" and isinstance(value, int) else value
        if isinstance(amount, (int, float)):
            unit = " minutes" if name == "time_limit" else ""
            if rule.minimum is not None and amount < rule.minimum:
                raise ResourceError(
                    f'{name} is {text}, but queue "{self.queue}" allows no less than {rule.minimum:g}{unit}'
                )
            if rule.maximum is not None and amount > rule.maximum:
                raise ResourceError(f'{name} is {text}, but queue "{self.queue}" allows at most {rule.maximum:g}{unit}')
        return value


def _parse(name: str, text: str) -> object:
    if name == "time_limit":
        return parse_time_limit(text)
    if name == "memory_gb":
        try:
            return round(float(text) * 1024)
        except (ValueError, OverflowError) as error:
            raise ResourceError(f'memory_gb is "{text}", expected a number of GiB such as 32 or 0.5') from error
    if isinstance(next(f for f in fields(Resources) if f.name == PROPERTY_FIELDS[name]).default, str):
        if not _WORD.match(text):
            raise ResourceError(f'{name} is "{text}", expected a Slurm name without spaces or quotes')
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ResourceError(f'{name} is "{text}", expected a whole number') from error


def parse_time_limit(text: str) -> int:
    """Minutes from Slurm's own forms: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``. Seconds round up.

    Raises:
        ResourceError: the text is none of them.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not match:
        raise ResourceError(f'time_limit is "{text}", expected minutes or Slurm\'s D-HH:MM:SS, for example 02:30:00')
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
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock
