"""Runs the walk inside the environment that ``scripts/walkthrough`` made."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from walk.page import StableText, page
from walk.picture import svg
from walk.site import WalkSite, walk_site
from walk.steps import ACCESS_KEY, API_SERVER, SECRET_KEY, STEPS, Step
from walk.terminal import Terminal, on_screen

PAGE = Path(__file__).resolve().parents[1] / "docs" / "walkthrough.md"
PICTURES = PAGE.parent / "pictures"
BEGIN = timedelta(hours=9)
"""The user's clock when the walk begins: the user has a time zone of its own, so that times on the page are alike."""
LIMIT_S = 600.0


class WalkError(Exception):
    """A step did not show what it has to; the message has what it printed."""


def walk(site: WalkSite, columns: int) -> list[str]:
    """What each step printed, with its escape sequences.

    Raises:
        WalkError: a step took too long, ended with another exit code, or did not show what it has to.
    """
    offset = _offset_to(BEGIN)
    environ = {**site.environ, "TZ": _time_zone(offset)}
    terminal = Terminal(site.user, site.home, environ, columns)
    stable = StableText(
        {
            site.api_server: "http://clearml.lab:8008",
            site.access_key: "ADASACCESSKEY0000001",
            socket.gethostname(): "login",
            f"hpc-agent-{site.uid}": "hpc-agent-1001",
        },
        offset,
    )
    return [stable.of(_run(terminal, site, number, step)) for number, step in enumerate(STEPS, 1)]


def _run(terminal: Terminal, site: WalkSite, number: int, step: Step) -> str:
    print(f"{number:>3} of {len(STEPS)}  {step.command.splitlines()[0]}", file=sys.stderr, flush=True)
    _wait_for(terminal, step)
    own = {API_SERVER: site.api_server, ACCESS_KEY: site.access_key, SECRET_KEY: site.secret_key}
    answers = [(before, own.get(answer, answer)) for before, answer in step.answers]
    try:
        outcome = terminal.run(step.command, answers, LIMIT_S)
    except TimeoutError as error:
        raise WalkError(f"{step.command}: no end after {LIMIT_S:g} s; it printed:\n{error}") from error
    shown = on_screen(outcome.output)
    missing = [text for text in step.shows if text not in " ".join(shown.split()) and text not in shown]
    if outcome.code != step.code or missing:
        ended = f"exit code {outcome.code}, expected {step.code}; not shown: {missing}"
        raise WalkError(f"{step.command}: {ended}; it printed:\n{shown}")
    return outcome.output


def _wait_for(terminal: Terminal, step: Step) -> None:
    deadline = time.monotonic() + LIMIT_S
    while step.when and not terminal.succeeds(step.when):
        if time.monotonic() > deadline:
            raise WalkError(f"{step.command}: {step.when} did not come true in {LIMIT_S:g} s")
        time.sleep(0.5)


def _offset_to(begin: timedelta) -> timedelta:
    """From UTC to the local time that is ``begin`` now, in whole minutes."""
    now = datetime.now(timezone.utc)
    return begin - timedelta(hours=now.hour, minutes=now.minute)


def _time_zone(offset: timedelta) -> str:
    """As POSIX writes it: what is to be added to the local time."""
    minutes = -int(offset.total_seconds()) // 60
    return f"LAB{'-' if minutes < 0 else '+'}{abs(minutes) // 60}:{abs(minutes) % 60:02d}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/walkthrough", description="A user's first day on a real Slurm.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and its pictures, print nothing")
    parser.add_argument("--user", default="ada", help="name of the user that is made (%(default)s)")
    parser.add_argument("--columns", type=int, default=100, help="width of the terminal (%(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: only root can make a user: run it as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="hpc-agent-walk-"))
    try:
        with walk_site(folder, options.user) as site:
            outputs = walk(site, options.columns)
    except WalkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = page([on_screen(output) for output in outputs])
    if not options.write:
        print(text, end="")
        return 0
    PAGE.write_text(text, encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for step, output in zip(STEPS, outputs, strict=True):
        if step.picture:
            (PICTURES / f"{step.picture}.svg").write_text(svg(output, options.columns), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
