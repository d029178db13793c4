"""Templates of the page, their filters, and the headers of its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from jinja2 import ChainableUndefined, Environment, PackageLoader, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from hpc_agent.server.page.static_files import static_address

_PLOTLY_STYLES = (
    # plotly.js adds two style elements: an empty one, which it fills through the DOM, and one for maps. Their hashes
    # let in these two and no other. It also writes style attributes (the pixels of heatmaps, cells of tables).
    "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' "
    "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='; style-src-attr 'unsafe-inline'; "
)
PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; {_PLOTLY_STYLES}"
    "img-src 'self' data: blob:; media-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # Not "no-referrer": browsers would send "Origin: null" with forms, which is also what a hostile page can send.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}

_LONGEST_STATUS = 4000
_NUMBER = re.compile(r"[0-9]+")
_DIGITS = 20

STATUS_NAMES = {
    "created": "Draft",
    "queued": "Queued",
    "in_progress": "Running",
    "stopped": "Aborted",
    "completed": "Completed",
    "failed": "Failed",
    "published": "Published",
    "publishing": "Publishing",
    "closed": "Closed",
    "unknown": "Unknown",
}
"""Statuses in the words of the web page, in the order of a filter."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LONG_AGO = 45 * 86_400


class Templates:
    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("hpc_agent.server.page", "templates"),
            autoescape=True,
            undefined=ChainableUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            moment=_moment,
            duration=duration,
            size=size,
            number=number,
            status_name=status_name,
            segment=segment,
            shortened=shortened,
            status_text=status_text,
            diff_lines=diff_lines,
        )
        self._environment.globals.update(static=static_address, statuses=STATUS_NAMES)

    def render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(template).render(**values)


def status_name(status: str) -> str:
    return STATUS_NAMES.get(status, status)


def segment(text: object) -> str:
    """Text as one part of a path."""
    return quote(str(text), safe="*")


def duration(seconds: float | None) -> str:
    """``1 h 12 min``: the two largest units."""
    if seconds is None:
        return ""
    left = max(int(seconds), 0)
    parts: list[str] = []
    for length, unit in _UNITS:
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    shown = [part for part in parts if not part.startswith("0 ")]
    return " ".join(shown) or "0 s"


def size(count: float | None) -> str:
    """Bytes with a binary unit."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def number(value: object) -> str:
    """A measured value in at most six digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def parse_moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def ago(moment: datetime, now: datetime) -> str:
    """``3 min ago``; the date when that is longer ago than a month and a half."""
    seconds = (now - moment).total_seconds()
    if seconds < 0 or seconds > _LONG_AGO:
        return moment.strftime("%Y-%m-%d")
    if seconds < 10:
        return "just now"
    length, unit = next((length, unit) for length, unit in _UNITS if seconds >= length)
    return f"{int(seconds // length)} {unit} ago"


@pass_context
def _moment(context: Context, text: str | None) -> Markup:
    moment = parse_moment(str(text)) if text else None
    if moment is None:
        return Markup("")
    full = moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), full, ago(moment, context["now"])
    )


def diff_lines(text: str) -> Markup:
    """A diff with its added and removed lines marked; any other text as it is."""
    if not text.startswith(("diff ", "--- ", "Index: ")):
        return Markup("{}").format(text)
    return Markup("\n").join(_diff_line(line) for line in text.split("\n"))


def _diff_line(line: str) -> Markup:
    is_name = line.startswith(("+++ ", "--- "))
    kind = "" if is_name else {"+": "added", "-": "removed", "@": "hunk"}.get(line[:1], "")
    return Markup('<span class="{}">{}</span>').format(kind, line) if kind else Markup("{}").format(line)


def shortened(text: object, longest: int) -> str:
    """The text cut to so many characters."""
    plain = str(text)
    return plain if len(plain) <= longest else plain[:longest] + " …"


def status_text(task: Mapping[str, Any]) -> str:
    """Why a task has its status: its reason and its message, once where they are the same."""
    texts = [str(task.get(name) or "") for name in ("status_reason", "status_message")]
    return " · ".join(shortened(text, _LONGEST_STATUS) for text in dict.fromkeys(texts) if text)


def natural_order(text: str) -> str:
    """Key that sorts ``layer 2`` before ``layer 10``."""
    return _NUMBER.sub(lambda digits: digits[0].zfill(_DIGITS), text)
