"""sbatch's own command line, read as sbatch reads it; sbatch gets all of it, so what is unknown here does no harm.

Pure. Options as of Slurm 20.11 to 24.11; a site's plugins add more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from hpc_agent.errors import InputError

OWN = ("clearml-project", "clearml-name", "clearml-tags")
"""Our options: no option of sbatch, nor an abbreviation of one, begins like them."""

_FLAGS = (
    "contiguous", "external", "help", "hold", "ignore-pbs", "no-requeue", "overcommit", "oversubscribe", "parsable",
    "quiet", "reboot", "requeue", "share", "spread-job", "stepmgr", "test-only", "usage", "use-min-nodes",
    "verbose", "version", "wait",
)  # fmt: skip
_OPTIONAL = (
    "exclusive", "get-user-env", "nice", "no-kill", "oom-kill-step", "propagate", "x11",
)  # fmt: skip
_VALUED = (
    "account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters",
    "comment", "constraint", "container", "container-id", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude",
    "export", "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint", "input", "job-name", "kill-on-invalid-dep",
    "licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus",
    "network", "nodefile", "nodelist", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node",
    "ntasks-per-socket", "ntasks-per-tres", "open-mode", "output", "partition", "power", "prefer", "priority",
    "profile", "qos", "reservation", "resv-ports", "segment", "signal", "sockets-per-node", "switches",
    "thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind", "tres-per-task", "uid", "umask",
    "wait-all-nodes", "wckey", "workdir", "wrap",
)  # fmt: skip
_SHORT = {
    "A": "account",
    "a": "array",
    "B": "extra-node-info",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "h": "help",
    "i": "input",
    "J": "job-name",
    "k": "no-kill",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "O": "overcommit",
    "o": "output",
    "P": "dependency",
    "p": "partition",
    "Q": "quiet",
    "q": "qos",
    "S": "core-spec",
    "s": "oversubscribe",
    "t": "time",
    "V": "version",
    "v": "verbose",
    "W": "wait",
    "w": "nodelist",
    "x": "exclude",
}
_LONG = {**dict.fromkeys(_FLAGS, 0), **dict.fromkeys(_OPTIONAL, 1), **dict.fromkeys(_VALUED, 2)}
"""Name → 0 no value, 1 a value after ``=`` only, 2 a value."""
_VALUE = 2
_SAME = {"workdir": "chdir", "share": "oversubscribe"}


class CommandLine(msgspec.Struct, frozen=True):
    """``words`` are for sbatch: all but our own options. ``options`` are its options by their long names, of the first
    component of a heterogeneous job; one without a value has ``""``."""

    words: tuple[str, ...] = ()
    own: Mapping[str, str] = msgspec.field(default_factory=dict)
    options: Mapping[str, str] = msgspec.field(default_factory=dict)
    script: str = ""
    """Empty: from standard input, or ``--wrap``."""
    arguments: tuple[str, ...] = ()
    heterogeneous: bool = False
    parsable: bool = False
    """Of any component of a heterogeneous job; checked on 22.05."""
    insert_at: int = 0
    """Where in ``words`` a further option may be put so that it beats those before it."""

    def with_options(self, options: Sequence[str]) -> list[str]:
        return [*self.words[: self.insert_at], *options, *self.words[self.insert_at :]]


def parse(words: Sequence[str], is_file: Callable[[str], bool] = lambda _: False) -> CommandLine:
    """Read the words after ``sbatch``. ``is_file`` tells a script from the value of an unknown option.

    Raises:
        InputError: one of our own options lacks its value.
    """
    reader = _OptionReader(list(words), is_file)
    while reader.rest and reader.rest[0].startswith("-") and reader.rest[0] not in ("-", "--"):
        reader.option()
        if reader.rest[:1] == [":"]:
            reader.next_component()
    insert_at = len(reader.kept)
    if reader.rest[:1] == ["--"]:
        reader.keep()
    script, *arguments = reader.rest or [""]
    return CommandLine(
        words=(*reader.kept, *reader.rest),
        own=reader.own,
        options=reader.options,
        script=script,
        arguments=tuple(arguments),
        heterogeneous=reader.heterogeneous,
        parsable=reader.parsable,
        insert_at=insert_at,
    )


class _OptionReader:
    def __init__(self, words: list[str], is_file: Callable[[str], bool]) -> None:
        self.rest = words
        self.kept: list[str] = []
        self.own: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.heterogeneous = False
        self.parsable = False
        self._is_file = is_file

    def keep(self) -> str:
        self.kept.append(self.rest.pop(0))
        return self.kept[-1]

    def next_component(self) -> None:
        self.keep()
        self.heterogeneous = True

    def option(self) -> None:
        name = self.rest[0].partition("=")[0].lstrip("-")
        if self.rest[0].startswith("--") and name in OWN:
            self._own(name)
        elif self.rest[0].startswith("--"):
            self._long()
        else:
            self._short()

    def _own(self, name: str) -> None:
        _, equals, value = self.rest.pop(0).partition("=")
        if not equals:
            if not self.rest:
                raise InputError(f"--{name} needs a value")
            value = self.rest.pop(0)
        self.own[name] = value

    def _long(self) -> None:
        text, equals, value = self.keep()[2:].partition("=")
        name = resolve(text)
        if equals:
            self._set(name, value)
        elif self._takes_next(name):
            self._set(name, self.keep())
        else:
            self._set(name, "")

    def _takes_next(self, name: str) -> bool:
        if not self.rest:
            return False
        if name in _LONG:
            return _LONG[name] == _VALUE
        return not self.rest[0].startswith("-") and not self._is_file(self.rest[0])

    def _short(self) -> None:
        """``-vW``, ``-N2``, ``-N 2``."""
        letters = self.keep()[1:]
        while letters:
            name, letters = _SHORT.get(letters[0], letters[0]), letters[1:]
            kind = _LONG.get(name, 0)
            if kind == _VALUE and not letters and self.rest:
                letters = self.keep()
            self._set(name, letters if kind else "")
            if kind:
                return

    def _set(self, name: str, value: str) -> None:
        self.parsable |= name == "parsable"
        if not self.heterogeneous:
            self.options[_SAME.get(name, name)] = value


def resolve(text: str) -> str:
    """The full name of a long option, which may be abbreviated as far as it stays unique."""
    if text in _LONG:
        return text
    matches = [name for name in _LONG if name.startswith(text)]
    return matches[0] if len(matches) == 1 else text
