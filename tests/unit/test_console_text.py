"""Console text as markup: a terminal's colours, nothing else of what a task may write."""

from __future__ import annotations

import pytest

from hpc_agent.server.page.console_text import coloured, console_lines, plain_text


def test_lines_are_what_a_terminal_would_show_last() -> None:
    messages = ["\x1b[31mred\x1b[0m\n", "10%\r50%\r100%\r\n", "bell\x07 title\x1b]0;t\x07", "end"]
    assert plain_text(console_lines(messages)) == "red\n100%\nbell title\nend\n"


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("plain <b> & more", "plain &lt;b&gt; &amp; more"),
        ("\x1b[31mred\x1b[0m on", '<span class="t-fg-red">red</span> on'),
        ("\x1b[1;4;92mok", '<span class="t-bold t-underline t-fg-bright-green">ok</span>'),
        ("\x1b[1mbold\x1b[22m not", '<span class="t-bold">bold</span> not'),
        ("\x1b[31;44mx\x1b[39my", '<span class="t-fg-red t-bg-blue">x</span><span class="t-bg-blue">y</span>'),
        ("\x1b[38;5;196mx", '<span class="t-fg-red">x</span>'),
        ("\x1b[38;2;255;255;255mx", '<span class="t-fg-bright-white">x</span>'),
        ("\x1b[48;5;244mx", '<span class="t-bg-bright-black">x</span>'),
        ("\x1b[38;5mx\x1b[38;2;1mx", "xx"),
        ("\x1b[mx\x1b[;mx\x1b[999999999mx", "xxx"),
        ("\x1b[2J\x1b[10;4Hx\x1b]8;;https://evil.example\x07link\x1b]8;;\x07", "xlink"),
        ("\x1b[31", "[31"),
        ("\x00\x08a\x7fb", "ab"),
        ('\x1b[31m"><script>', '<span class="t-fg-red">&#34;&gt;&lt;script&gt;</span>'),
    ],
)
def test_colours_become_classes_and_other_codes_are_removed(text: str, markup: str) -> None:
    assert str(coloured(text)) == markup
