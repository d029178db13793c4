"""Commands that read an argument as a program once more: what is quoted for this shell is not quoted for that. Pure.

By their names, and so never all of them: ``docs/security.md`` says what is left to the author of a template.
"""

from __future__ import annotations

import re

_ALWAYS = frozenset(
    [
        *("eval", "trap", "let", "declare", "typeset", "local", "read", "[[", "--wrap"),
        *("ssh", "pdsh", "clush", "su", "xargs", "parallel", "watch", "tmux", "sed"),
        *("awk", "gawk", "mawk", "nawk"),
    ]
)
_BY_OPTION = (
    # Names of variables, whose index is computed.
    (re.compile(r"printf|test|\["), "v"),
    (re.compile(r"(?:ba|da|a|k|mk|z|c|tc|fi)?sh|\$\{?SHELL\}?|python[\d.]*|flock|script"), "c"),
    (re.compile(r"perl|ruby|node|julia|lua|php|R|Rscript"), "er"),
)
"""Commands, and the letters that end the option before a program."""
_BY_INPUT = re.compile(r"(?:ba|da|a|k|mk|z|c|tc|fi)?sh|python[\d.]*|perl|ruby|node|julia|lua|php|R|Rscript|source|\.")
"""Those that ``<<<`` gives a program."""
_HERE_STRING = "<<<"
_WORDS = re.compile(r"[\s;&|(]+|(?=<<<)")
_OPTION = re.compile(r"-\w*(\w)(?:[=\"']|$)")
_END_OF_NAME = re.compile(r"[=\"']")


def is_read_again(line: str) -> bool:
    """Whether text at the end of ``line``, the begin of a command line, may be read by such a command. Takes a time
    that is proportional to its length: texts of tasks are in it."""
    letters: set[str] = set()
    reads_input = False
    for word in _WORDS.split(line):
        name = _END_OF_NAME.split(word.lstrip("\"'"), maxsplit=1)[0].rpartition("/")[2]
        option = _OPTION.match(word)
        if name in _ALWAYS or (option and option[1] in letters) or (reads_input and word.startswith(_HERE_STRING)):
            return True
        letters.update(*(found for pattern, found in _BY_OPTION if pattern.fullmatch(name)))
        reads_input = reads_input or _BY_INPUT.fullmatch(name) is not None
    return False
