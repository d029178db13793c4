"""Flags with several values are read as argparse reads them."""

from __future__ import annotations

from argparse import ArgumentParser

import click
import pytest
from click.testing import CliRunner

from hpc_agent.cli.multi_value_options import MultiValueCommand, MultiValueOption


@click.command(cls=MultiValueCommand)
@click.option("--args", "arguments", cls=MultiValueOption, metavar="NAME=VALUE", help="Arguments.")
@click.option("--queue", "queues", cls=MultiValueOption, at_least=1)
@click.option("--docker", cls=MultiValueOption, unknown_options=True)
@click.option("--numbers", cls=MultiValueOption, type=int)
@click.option("--name")
@click.option("-O", "optimize", count=True)
@click.option("--foreground/--background")
@click.argument("words", nargs=-1)
def command(**values: object) -> None:
    print(
        {name: value for name, value in values.items() if value not in (None, 0, False) and value != ()}
        | _empty(values)
    )


def _empty(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value == () and name != "words"}


def parse(*line: str) -> object:
    result = CliRunner().invoke(command, line)
    assert result.exit_code == 0, result.output
    return eval(result.output)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ([], {}),
        (["--args", "a=1", "b=2"], {"arguments": ("a=1", "b=2")}),
        (["--args", "a=1", "b=2", "--name", "x"], {"arguments": ("a=1", "b=2"), "name": "x"}),
        (["--name", "x", "--args", "a=1", "--queue", "q"], {"arguments": ("a=1",), "name": "x", "queues": ("q",)}),
        (["--args"], {"arguments": ()}),
        (["--args", "--name", "x"], {"arguments": (), "name": "x"}),
        (["--args=a=1"], {"arguments": ("a=1",)}),
        (["--args=--x", "--args", "b"], {"arguments": ("--x", "b")}),
        (["--args", "a", "--name", "x", "--args", "b"], {"arguments": ("a", "b"), "name": "x"}),
        (["--args", "", "-", "-3", "-.5", "-x y", "--x y"], {"arguments": ("", "-", "-3", "-.5", "-x y", "--x y")}),
        (["--args", "a", "--", "b", "--name"], {"arguments": ("a",), "words": ("b", "--name")}),
        (["one", "--args=a", "two"], {"arguments": ("a",), "words": ("one", "two")}),
        (["--docker"], {"docker": ()}),
        (
            ["--docker", "image", "--ipc=host", "-v", "/a:/b", "-OO"],
            {"docker": ("image", "--ipc=host", "-v", "/a:/b"), "optimize": 2},
        ),
        (["--docker", "image", "--foreground"], {"docker": ("image",), "foreground": True}),
        (["--numbers", "1", "-2"], {"numbers": (1, -2)}),
    ],
)
def test_values_after_one_flag(line: list[str], values: dict[str, object]) -> None:
    assert parse(*line) == values


@pytest.mark.parametrize(
    "line",
    [["--args", "a=1", "b=2"], ["--args"], ["--args", "-1", "-x y", "", "--name", "x"], ["--args=a"], ["--args", "a"]],
)
def test_argparse_reads_the_same(line: list[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--args", nargs="*")
    parser.add_argument("--name")
    seen = parse(*line)
    assert isinstance(seen, dict)
    assert list(seen["arguments"]) == parser.parse_args(line).args


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--queue"], "Option '--queue' needs a value at least."),
        (["--queue", "--name", "x"], "Option '--queue' needs a value at least."),
        (["--args", "a", "--unknown"], "--unknown"),
        (["--numbers", "1", "two"], "'two' is not a valid integer"),
    ],
)
def test_wrong_usage_exits_2(line: list[str], words: str) -> None:
    result = CliRunner().invoke(command, line)
    assert result.exit_code == 2
    assert words in result.output


def test_help_shows_how_many() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    assert "--args [NAME=VALUE ...]" in text
    assert "--queue TEXT ..." in text
