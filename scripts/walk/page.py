"""Page of the walk, docs/walkthrough.md: each step with its output, without what differs from run to run."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from walk.steps import SECTIONS, Step

DAY = "2026-01-31"
_WIDTH = 120
_INTRODUCTION = """\
# A researcher's first day

What `scripts/walkthrough` showed: a user who is neither root nor Slurm's own types these commands on a real Slurm 22.05
of three nodes, in a terminal of 100 columns. Ids, addresses, dates and process numbers are replaced; everything else is
as it was printed, with the exit code in brackets where it is not 0. Each command: [commands.md](commands.md).
"""
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_ATTEMPT = re.compile(r"[0-9a-f]{32}[/_]([0-9a-f]{8})\b")


@dataclass
class StableText:
    """Replaces ids, keys, addresses, names of machines and dates by ones that are the same in each run."""

    words: Mapping[str, str]
    """Exact text → what is in its place."""
    utc_offset: timedelta
    """Of the user's local time; what is printed in UTC is shown in local time."""
    _ids: dict[str, str] = field(default_factory=dict)

    def of(self, text: str) -> str:
        for found in _ID.findall(text):
            self._remember(found, 32)
            self._ids.setdefault(found[:8], self._ids[found][:8])
        for found in _ATTEMPT.findall(text):
            self._remember(found, 8)
        for old, new in sorted(self._ids.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(old, new)
        for old, new in self.words.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w-])", new, text)
        text = re.sub(r"\bprocess \d+", "process 4242", text)
        text = re.sub(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d) UTC", self._local, text)
        text = re.sub(r"\b20\d\d-\d\d-\d\d\b", DAY, text)
        return re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d\d [A-Z][a-z]{2} ", "Sat 31 Jan ", text)

    def _remember(self, found: str, length: int) -> None:
        made = hashlib.sha256(f"walk {len(self._ids)}".encode()).hexdigest()[:length]
        self._ids.setdefault(found, made)

    def _local(self, found: re.Match[str]) -> str:
        moment = datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc)
        return f"{moment + self.utc_offset:%Y-%m-%d %H:%M} UTC"


def shown_command(command: str) -> str:
    """As bash shows what is typed."""
    first, *rest = command.split("\n")
    here = "<<'END'" in first
    inside = ["" if here and not line else f"> {line}" if here else f"$ {line}" for line in rest]
    return "\n".join([f"$ {first}", *(line or ">" for line in inside)])


def block(step: Step, output: str) -> str:
    lines = [shown_command(step.command)]
    lines += [output.strip("\n")] if output.strip() else []
    lines += [f"[exit code {step.code}]"] if step.code else []
    return "```console\n" + "\n".join(lines) + "\n```"


def page(outputs: Sequence[str]) -> str:
    """``outputs``: of each step, as it is to be shown."""
    rest = iter(outputs)
    parts = [_INTRODUCTION.strip()]
    for section in SECTIONS:
        parts.append(f"## {section.title}")
        for step in section.steps:
            parts += [textwrap.fill(step.text, _WIDTH, break_on_hyphens=False, break_long_words=False)] * bool(
                step.text
            )
            parts.append(block(step, next(rest)))
            parts += [f"![hpc-agent {step.picture} in a terminal](pictures/{step.picture}.svg)"] * bool(step.picture)
    return "\n\n".join(parts) + "\n"


def commands(page: str) -> list[str]:
    """The commands that a page shows, block by block."""
    found = []
    for text in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        lines = [line[2:] for line in text.splitlines() if line.startswith(("$ ", "> ")) or line == ">"]
        found.append("\n".join(lines))
    return found
