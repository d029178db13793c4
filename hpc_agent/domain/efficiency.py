"""What a task used of what it asked for: amounts, their form as user properties, what to ask for next time. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from hpc_agent.domain import duration


class Used(msgspec.Struct, frozen=True):
    """An amount that was used, and the one that was asked for; None where that is not known, or has no limit."""

    used: float
    asked: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.used / self.asked if self.asked else None


class Efficiency(msgspec.Struct, frozen=True):
    """Use of one run on its first node. None: it was not measured."""

    cpus: Used | None = None
    """CPUs, the mean in use."""
    memory: Used | None = None
    """GiB, the most in use."""
    gpus: Used | None = None
    """GPUs, the mean that was busy: two GPUs at 50 % are one."""
    gpu_memory: Used | None = None
    """GiB, the most in use on one GPU, of what that has."""
    seconds: Used | None = None
    """How long the job ran, of its time limit."""


class UsageDetails(msgspec.Struct, frozen=True):
    """What advice needs in addition to the amounts."""

    busiest_cpus: float | None = None
    """CPUs in use, of which 95 % of the samples were below."""
    idle_gpus: int = 0
    """GPUs that were never busy."""
    completed: bool = True


# ---------------------------------------------------------------- as user properties

PREFIX = "hpc_used_"
ADVICE = "hpc_advice"
JOB = "hpc_job"
"""User property with the job that the amounts are of: a clone has those of its original until it has run itself."""
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_AMOUNT = re.compile(rf"{_NUMBER}(?: of {_NUMBER})?(?: (?:CPUs|GPUs|GiB))?(?: \([0-9]+ ?%\))?")
_UNITS: Mapping[str, str] = {"cpus": "CPUs", "memory": "GiB", "gpus": "GPUs", "gpu_memory": "GiB"}


def as_properties(efficiency: Efficiency) -> dict[str, str]:
    """``{"hpc_used_memory": "9.1 of 64 GiB (14%)"}``, for each amount that was measured."""
    texts = {PREFIX + name: amount(getattr(efficiency, name), unit) for name, unit in _UNITS.items()}
    texts[f"{PREFIX}time"] = time_amount(efficiency.seconds)
    return {name: text for name, text in texts.items() if text}


def from_properties(properties: Mapping[str, str]) -> Efficiency | None:
    """The reverse; None where no amount is there. One that a person has changed beyond recognition is not measured."""
    shares = {name: _share(properties.get(PREFIX + name, "")) for name in _UNITS}
    seconds = _time_share(properties.get(f"{PREFIX}time", ""))
    if seconds is None and not any(shares.values()):
        return None
    return Efficiency(**shares, seconds=seconds)


def amount(share: Used | None, unit: str) -> str:
    """``9.1 of 64 GiB (14%)``; empty where it was not measured."""
    if share is None:
        return ""
    of = "" if share.asked is None else f" of {_short(share.asked)}"
    return f"{_short(share.used)}{of} {unit}{_percent(share)}"


def time_amount(share: Used | None) -> str:
    """``01:12:00 of 04:00:00 (30%)``."""
    if share is None:
        return ""
    of = "" if share.asked is None else f" of {duration.format_duration(share.asked)}"
    return f"{duration.format_duration(share.used)}{of}{_percent(share)}"


def _short(number: float) -> str:
    """``0.0042``, ``0.35``, ``9.1``, ``12.5``, ``4096``."""
    if number >= 1000:
        return f"{number:.0f}"
    return f"{number:.3g}" if number >= 1 else f"{number:.2g}" if number >= 0.01 else f"{number:.4f}"


def _percent(share: Used) -> str:
    return "" if share.ratio is None else f" ({share.ratio:.0%})"


def _share(text: str) -> Used | None:
    match = _AMOUNT.fullmatch(text.strip())
    return Used(float(match[1]), float(match[2]) if match[2] else None) if match else None


def _time_share(text: str) -> Used | None:
    used, _, rest = text.partition(" of ")
    seconds, limit = duration.seconds(used), duration.seconds(rest.partition(" (")[0])
    return None if seconds is None else Used(seconds, limit)


# ---------------------------------------------------------------- advice

_HEADROOM = 1.25
_REPRESENTATIVE_S = 600.0
"""A run that failed earlier says nothing about what it would have needed."""
_MEASURED_S = 60.0
"""A shorter run has too few samples of CPUs and GPUs."""


def advice(efficiency: Efficiency, details: UsageDetails) -> tuple[str, ...]:
    """What to ask for next time, a sentence each, the most useful first; nothing for a run that was too short."""
    seconds = efficiency.seconds.used if efficiency.seconds else 0.0
    if not details.completed and seconds < _REPRESENTATIVE_S:
        return ()
    found = [_memory_advice(efficiency.memory)]
    if seconds >= _MEASURED_S:
        found = [_gpu_advice(efficiency, details), *found, _cpu_advice(efficiency.cpus, details.busiest_cpus)]
    if details.completed:
        found.append(_time_advice(efficiency.seconds))
    return tuple(sentence for sentence in found if sentence)


def _memory_advice(memory: Used | None) -> str:
    if memory is None or not memory.asked:
        return ""
    enough = max(math.ceil(memory.used * _HEADROOM), 1)
    if memory.asked - enough < 1 or enough > 0.75 * memory.asked:
        return ""
    return (
        f"asked {_short(memory.asked)} GiB, used {_short(memory.used)} at most: memory_gb {enough} would have been "
        "enough"
    )


def _cpu_advice(cpus: Used | None, busiest: float | None) -> str:
    if cpus is None or not cpus.asked or busiest is None:
        return ""
    enough = max(math.ceil(busiest - 0.25), 1)
    if enough > 0.75 * cpus.asked:
        return ""
    return f"asked {cpus.asked:.0f} CPUs, used {_short(busiest)} at most: num_cpus {enough} would have been enough"


def _gpu_advice(efficiency: Efficiency, details: UsageDetails) -> str:
    gpus, cpus = efficiency.gpus, efficiency.cpus
    if gpus is None or not gpus.asked:
        return ""
    asked, used = round(gpus.asked), round(gpus.asked) - details.idle_gpus
    if not used:
        which = "its GPU was" if asked == 1 else f"its {asked} GPUs were"
        return f"{which} never busy: look whether the program uses CUDA, or ask for num_gpus 0"
    if details.idle_gpus:
        return f"asked {asked} GPUs, used {used}: num_gpus {used} would have been enough"
    busy = gpus.used / asked
    if busy < 0.5 and cpus is not None and (cpus.ratio or 0.0) > 0.9:
        return f"its GPUs waited ({busy:.0%} busy) for CPUs that were all busy: more num_cpus may make it faster"
    if busy < 0.3:
        return f"its GPUs were {busy:.0%} busy: a larger batch or more workers of the data loader may make it faster"
    return ""


def _time_advice(seconds: Used | None) -> str:
    if seconds is None or not seconds.asked:
        return ""
    enough = math.ceil(seconds.used * _HEADROOM / 300) * 300
    if seconds.asked - enough < 1800 or enough > 0.75 * seconds.asked:
        return ""
    return (
        f"asked {duration.format_duration(seconds.asked)}, ran {duration.format_duration(seconds.used)}: time_limit "
        f"{duration.format_duration(enough)} would have been enough, and shorter jobs start sooner"
    )


# ---------------------------------------------------------------- sums


class Total(msgspec.Struct, frozen=True):
    """Use of many tasks together. Each share is weighted with the time that its task ran."""

    tasks: int
    seconds: float
    gpu_seconds: float
    cpus: float | None
    memory: float | None
    gpus: float | None
    gpu_memory: float | None
    time: float | None
    """Shares: 1 is all that was asked for; None where nothing was measured."""
    advice: str = ""
    """For the largest needs among them."""


def total(runs: Iterable[Efficiency]) -> Total:
    runs = list(runs)
    return Total(
        tasks=len(runs),
        seconds=sum(_seconds(run) for run in runs),
        gpu_seconds=sum(_seconds(run) * ((run.gpus.asked if run.gpus else None) or 0.0) for run in runs),
        cpus=_weighted((_seconds(run), run.cpus) for run in runs),
        memory=_weighted((_seconds(run), run.memory) for run in runs),
        gpus=_weighted((_seconds(run), run.gpus) for run in runs),
        gpu_memory=_weighted((_seconds(run), run.gpu_memory) for run in runs),
        time=_weighted((1.0, run.seconds) for run in runs),
        advice=_memory_advice(_largest(run.memory for run in runs)),
    )


def _seconds(run: Efficiency) -> float:
    return run.seconds.used if run.seconds else 0.0


def _weighted(shares: Iterable[tuple[float, Used | None]]) -> float | None:
    known = [(weight * share.used, weight * share.asked) for weight, share in shares if share and share.asked]
    asked = sum(amount for _, amount in known)
    return sum(amount for amount, _ in known) / asked if asked else None


def _largest(shares: Iterable[Used | None]) -> Used | None:
    known = [share for share in shares if share is not None]
    if not known:
        return None
    return Used(max(share.used for share in known), min((share.asked for share in known if share.asked), default=None))
