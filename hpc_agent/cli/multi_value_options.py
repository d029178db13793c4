"""Options that take several values after one flag, which click lacks and ClearML's commands are full of.

``--args a=1 b=2 --packages "keras" "tensorflow>2.2"`` is how argparse's ``nargs="*"`` reads a command line, and how
``clearml-task`` and ``clearml-agent`` are documented. A command that has such options is declared with both classes::

    @click.command(cls=MultiValueCommand)
    @click.option("--queue", "queues", cls=MultiValueOption, at_least=1, help="…")
    @click.option("--docker", cls=MultiValueOption, metavar="IMAGE [ARG", unknown_options=True, help="…")
    def daemon(queues: tuple[str, ...] | None, docker: tuple[str, ...] | None) -> None: ...

The value is None when the flag is absent, ``()`` when it has no value (``--docker``), else the values in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

Callback = Callable[[click.Context, click.Parameter, Any], Any]

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
_GIVEN = f"{__name__}.given"


class MultiValueOption(click.Option):
    """An option of a ``MultiValueCommand`` that takes all arguments up to the next option.

    - ``--args a=1 b=2``, ``--args a=1 --args b=2`` and ``--args=a=1 --args b=2`` are the same: repeating the flag adds
      (argparse would forget the first). A flag with ``=`` takes that one value only.
    - An argument that starts with ``-`` ends the values, unless it is ``-``, a negative number or has a blank in it
      (``--docker image "--ipc=host -v /a:/b"``), as argparse decides it. ``--`` ends them too.
    - ``at_least``: how many values the flag wants; fewer are a usage error.
    - ``unknown_options``: arguments that look like an option but are not one of this command are values too, as in
      ``--docker image --ipc=host -v /a:/b --foreground``.
    - ``type`` converts each value; ``callback`` gets None or the tuple.
    """

    def __init__(
        self,
        param_decls: Sequence[str] | None = None,
        *,
        at_least: int = 0,
        unknown_options: bool = False,
        callback: Callback | None = None,
        **attrs: Any,
    ) -> None:
        self.at_least = at_least
        self.unknown_options = unknown_options
        self._inner_callback = callback
        # click's own machinery then converts, documents and completes one value at a time.
        super().__init__(param_decls, multiple=True, callback=self._finish, **attrs)

    def _finish(self, ctx: click.Context, _: click.Parameter, values: tuple[Any, ...]) -> Any:
        """None for a flag that was neither given nor has a default: click knows ``()`` only."""
        value = values if values or self.name in ctx.meta.get(_GIVEN, ()) else None
        return self._inner_callback(ctx, self, value) if self._inner_callback else value

    def make_metavar(self, *args: Any, **kwargs: Any) -> str:
        word = self.metavar or self.type.name.upper()
        return f"{word} ..." if self.at_least else f"[{word} ...]"


class MultiValueCommand(click.Command):
    """A command whose ``MultiValueOption`` flags take several values each."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._spelled_out(ctx, args))

    def _spelled_out(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """The command line with a flag before each value: ``--args a b`` → ``--args a --args b``."""
        options = {name: p for p in self.get_params(ctx) if isinstance(p, click.Option) for name in _names(p)}
        given: set[str | None] = set()
        ctx.meta[_GIVEN] = given
        result: list[str] = []
        rest = list(args)
        while rest and rest[0] != "--":
            word = rest.pop(0)
            option = options.get(word.partition("=")[0] if word.startswith("--") else word)
            if not isinstance(option, MultiValueOption):
                result.append(word)
                continue
            given.add(option.name)
            if word not in options:
                result.append(word)  # --flag=value
                continue
            values = _take(rest, option, options)
            if len(values) < option.at_least:
                raise click.BadOptionUsage(word, _too_few(word, option.at_least), ctx=ctx)
            result += [part for value in values for part in (word, value)]
        return result + rest


def _names(option: click.Option) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def _take(words: list[str], option: MultiValueOption, known: Mapping[str, click.Option]) -> list[str]:
    """Remove the values of ``option`` from the head of ``words`` and return them."""
    count = 0
    while count < len(words) and _is_value(words[count], option, known):
        count += 1
    values, words[:] = words[:count], words[count:]
    return values


def _is_value(word: str, option: MultiValueOption, known: Mapping[str, click.Option]) -> bool:
    if not word.startswith("-") or word == "-":
        return True
    if word == "--" or word.partition("=")[0] in known:
        return False
    if _NEGATIVE_NUMBER.match(word) or " " in word:
        return True
    # -OO and -Xvalue are the short options -O and -X.
    return option.unknown_options and (word.startswith("--") or word[:2] not in known)


def _too_few(word: str, at_least: int) -> str:
    return f"Option {word!r} needs {'a value' if at_least == 1 else f'{at_least} values'} at least."
