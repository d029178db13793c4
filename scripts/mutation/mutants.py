"""Mutants as they are in ``tests/mutants.toml``, and what a mutant makes of a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path("tests/mutants.toml")


class MutantError(Exception):
    """The list of mutants cannot be used: one does not apply, is not Python, or is badly written."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``old`` must be in ``file`` exactly once; the mutant has ``new`` in its place."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    """In addition to those of its file."""
    survives: str = ""
    """Why no test can, or need, notice it; empty for one that must be killed."""


class _Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tests: dict[str, tuple[str, ...]]
    """For each mutated file the quick tests that concern it, those that are soonest done first."""
    mutant: tuple[Mutant, ...]


@dataclass(frozen=True)
class Mutants:
    all: Sequence[Mutant]
    _tests: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, root: Path) -> Mutants:
        """
        Raises:
            MutantError: the file is badly written, or two mutants share a name.
        """
        try:
            listed = msgspec.convert(tomllib.loads((root / FILE).read_text(encoding="utf-8")), _Listed)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise MutantError(f"{FILE}: {error}") from error
        names = [mutant.name for mutant in listed.mutant]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise MutantError(f"{FILE}: two mutants are called {', '.join(twice)}")
        return cls(listed.mutant, listed.tests)

    def tests(self, mutant: Mutant) -> tuple[str, ...]:
        return (*mutant.tests, *self._tests.get(mutant.file, ()))

    def named(self, *names: str) -> Mutants:
        """Those only.

        Raises:
            MutantError: one of these does not exist.
        """
        known = {mutant.name: mutant for mutant in self.all}
        if unknown := [name for name in names if name not in known]:
            raise MutantError(f"no mutant is called {', '.join(unknown)}")
        return Mutants([known[name] for name in names], self._tests)


def mutated(source: str, mutant: Mutant) -> str:
    """The file with the mutant's line.

    Raises:
        MutantError: the mutant does not apply to it.
    """
    found = source.count(mutant.old)
    if found != 1:
        raise MutantError(f"{mutant.name}: its old text is in {mutant.file} {found} times, not once")
    after = source.replace(mutant.old, mutant.new)
    if after == source:
        raise MutantError(f"{mutant.name}: it changes nothing")
    try:
        compile(after, mutant.file, "exec")
    except SyntaxError as error:
        raise MutantError(f"{mutant.name}: {mutant.file} is not Python with it: {error}") from error
    return after
