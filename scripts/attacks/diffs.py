"""Uncommitted changes of a task: they change files of its own code only, and are never dropped in silence."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from attacks.case import Case
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import HpcAgentError
from hpc_agent.sources.source_store import SourceStore

DOOR = "diffs"

_GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
_PAYLOAD = "EVIL"
_NEW = "new file mode 100644\n--- /dev/null\n"
_BINARY = "diff --git a/m.bin b/m.bin\nindex 1..2 100644\nBinary files a/m.bin and b/m.bin differ\n"


def _repository(folder: Path) -> Path:
    """A repository with a script, a link to the folder above all code, and one to a file there."""
    root = folder / "remote"
    (root / "d").mkdir(parents=True)
    (root / "run.py").write_text('print("X 1")\n')
    (root / "m.bin").write_bytes(b"\0\1")
    (root / "up").symlink_to("../..")
    (root / "d" / "up").symlink_to("../up")
    (root / "file").symlink_to(folder / "outside.txt")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"]):
        subprocess.run([*_GIT, *words], cwd=root, check=True, capture_output=True)
    return root


def _checked_out(folder: Path, diff: str) -> tuple[Path | None, str]:
    """The code of a task with these changes, None where they are refused, and the message to its user."""
    (folder / "outside.txt").write_text("untouched\n")
    script = TaskScript(f"file://{_repository(folder)}", branch="main", entry_point="run.py", diff=diff)
    store = SourceStore(folder / "cache", GitSettings(), SYSTEM)
    try:
        workspace = store.checkout(script, store.stage(script, lambda _: None), folder / "runs", lambda _: None)
    except HpcAgentError as error:
        return None, str(error)
    return workspace.root, " ".join(workspace.notes)


def _escapes(folder: Path, diff: str) -> str:
    """Whether anything was written outside of the code, or into git's own folder."""
    root, _ = _checked_out(folder, diff.replace("{folder}", str(folder)))
    if (folder / "outside.txt").read_text() != "untouched\n":
        return "a file outside was changed"
    for path in folder.rglob("*"):
        inside = root is not None and root in path.parents and ".git" not in path.relative_to(root).parts
        if path.is_symlink() or not path.is_file() or inside:
            continue
        if _PAYLOAD in path.name or _PAYLOAD in path.read_text(errors="replace"):
            return f"{path.relative_to(folder)} was written"
    return ""


def _is_dropped(folder: Path, diff: str) -> str:
    """Whether the committed code would run though the changes were not applied, without a message."""
    root, said = _checked_out(folder, diff)
    if root is None or said or 'print("X 2")' in (root / "run.py").read_text():
        return ""
    return "the committed code runs without a word"


def _creates(name: str) -> str:
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n"
    )


def _changes(name: str) -> str:
    return f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n"


def _quoted(name: str) -> str:
    old, new = f'"a/{name}"', f'"b/{name}"'
    return f"diff --git {old} {new}\nnew file mode 100644\n--- /dev/null\n+++ {new}\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n"


def _link(name: str, target: str) -> str:
    head = f"diff --git a/{name} b/{name}\nnew file mode 120000\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n"
    return f"{head}+{target}\n\\ No newline at end of file\n"


_NAMES = (
    *(
        "../EVIL",
        "../../EVIL",
        "../../../EVIL",
        "d/../../EVIL",
        "./../EVIL",
        "/EVIL",
        "{folder}/EVIL",
        "/{folder}/EVIL",
    ),
    *("up/EVIL", "d/up/EVIL", "up/outside.txt", "file", "up/../EVIL", "d/up/up/EVIL"),
    *(
        ".git/EVIL",
        ".git/config",
        ".git/hooks/post-checkout",
        ".GIT/config",
        "git~1/config",
        ".git /config",
        "d/.git/EVIL",
    ),
    *(".git/info/attributes", ".git/objects/info/alternates", ".git\u200c/config"),
)
_QUOTED = (
    *(
        "\\056\\056/EVIL",
        "\\056\\056\\057EVIL",
        "..\\057EVIL",
        "\\057EVIL",
        "\\056git/config",
        "d\\057..\\057..\\057EVIL",
    ),
    *("..\\\\EVIL", "\\x2e\\x2e/EVIL"),
)
_MOVED = (
    ("rename out", "rename from run.py\nrename to ../EVIL\n"),
    ("copy out", "copy from run.py\ncopy to ../EVIL\n"),
    ("rename into git", "rename from run.py\nrename to .git/EVIL\n"),
    ("rename from outside", "rename from ../outside.txt\nrename to EVIL.txt\n"),
    ("copy from outside", "copy from up/outside.txt\ncopy to got.txt\n"),
)
_TRICKS = (
    ("a new link, then through it", _link("l", "..") + _creates("l/EVIL")),
    ("a new absolute link, then through it", _link("l", "{folder}") + _creates("l/EVIL")),
    ("a link instead of a folder", _link("d/l", "../..") + _creates("d/l/EVIL")),
    ("a link into git's folder", _link("l", ".git") + _creates("l/EVIL")),
    ("a nested repository", _creates("sub/.git/config") + _creates("sub/.git/hooks/EVIL")),
    ("attributes with a filter", _creates(".gitattributes").replace(_PAYLOAD, "* filter=x") + _creates(".git/config")),
    ("old and new side differ", f"--- a/run.py\n+++ b/../EVIL\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n"),
    ("old side outside", f"--- a/../outside.txt\n+++ b/run.py\n@@ -1 +1 @@\n-untouched\n+{_PAYLOAD}\n"),
    (
        "no prefix",
        f"diff --git ../EVIL ../EVIL\n{_NEW}+++ ../EVIL\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n",
    ),
    ("no prefix, absolute", f"--- {{folder}}/EVIL\n+++ {{folder}}/EVIL\n@@ -0,0 +1 @@\n+{_PAYLOAD}\n"),
    ("coloured", "\x1b[1m" + _creates("../EVIL").replace("\n", "\x1b[m\n")),
    ("after a word of a submodule", "Submodule x 1..2:\n" + _creates("../EVIL")),
)

_BODY = '--- a/run.py\n+++ b/run.py\n@@ -1 +1 @@\n-print("X 1")\n+print("X 2")\n'
_HEAD = "diff --git a/run.py b/run.py\n"
_COLOURED = "".join(f"\x1b[1m{line}\x1b[m\n" for line in (_HEAD + _BODY).splitlines())
_PREFIXES = (("i/", "w/"), ("c/", "i/"), ("", ""), ("old/", "new/"), ("1/", "2/"))
_HEARD = (
    ("plain", _HEAD + _BODY),
    ("words of submodules", "Submodule libs/foo contains modified content\nSubmodule libs/foo 1..2:\n" + _HEAD + _BODY),
    ("new submodule", "Submodule libs/foo 0000000...1111111 (new submodule)\n" + _HEAD + _BODY),
    ("colours", _COLOURED),
    ("colours and a submodule", "\x1b[1mSubmodule a 1..2:\x1b[m\n" + _COLOURED),
    ("colours of 256", _COLOURED.replace("\x1b[1m", "\x1b[38;5;9m")),
    ("a byte order mark", "\ufeff" + _HEAD + _BODY),
    ("a warning", "warning: in the working copy of 'run.py', LF will be replaced by CRLF\n" + _HEAD + _BODY),
    ("a mail", "From 1111 Mon Sep 17 00:00:00 2001\nFrom: a <a@b>\nSubject: [PATCH] x\n\n---\n" + _HEAD + _BODY),
    ("empty lines", "\n\n \n" + _HEAD + _BODY),
    ("diff(1)", "diff -u a/run.py b/run.py\n" + _BODY),
    ("no header", _BODY),
    ("Index:", "Index: run.py\n" + "=" * 67 + "\n" + _BODY),
    ("upper case", (_HEAD + _BODY).replace("diff --git", "DIFF --GIT")),
    ("carriage returns in the head", _HEAD.replace("\n", "\r\n") + _BODY),
    (
        "binary files",
        "diff --git a/m.bin b/m.bin\nindex 1..2 100644\nBinary files a/m.bin and b/m.bin differ\n" + _HEAD + _BODY,
    ),
    ("only binary files", _BINARY),
    ("a merge", "diff --cc run.py\nindex 1,2..0\n--- a/run.py\n+++ b/run.py\n@@@ -1,1 -1,1 +1,1 @@@\n++x\n"),
    ("a merge at the end", "* Unmerged path run.py\n"),
    ("word diff", _HEAD + '--- a/run.py\n+++ b/run.py\n@@ -1 +1 @@\nprint("X [-1-]{+2+}")\n'),
    ("difftastic", 'run.py --- Python\n1 print("X 1")                 1 print("X 2")\n'),
    ("too large", "# WARNING! git diff too large to store, clear this section to execute without it\n"),
    ("an error of git", "fatal: bad revision 'HEAD'\n"),
    ("a stat", " run.py | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n"),
    ("a name only", "run.py\n"),
    ("ed", '1c\nprint("X 2")\n.\n'),
    (
        "a context diff",
        '*** a/run.py\n--- b/run.py\n***************\n*** 1 ****\n! print("X 1")\n--- 1 ----\n! print("X 2")\n',
    ),
    ("base64", "ZGlmZiAtLWdpdCBhL3J1bi5weSBiL3J1bi5weQo=\n"),
    ("another script", 'print("X 3")\n'),
)


def _long(folder: Path, diff: str) -> str:
    """Texts that took minutes to look at; refused or looked at in one pass, and no file of theirs is made."""
    root, _ = _checked_out(folder, diff)
    return "" if root is None or sum(1 for _ in root.iterdir()) < 20 else "many files were made"


_LONG = tuple(
    Case(f"a megabyte of {piece!r}", partial(_long, diff=piece * (1_000_000 // len(piece))))
    for piece in (
        "--- ",
        '--- "\\\\',
        "+++ ",
        "diff --git ",
        '"',
        "@@ -1 +1 @@\n",
        "--- a\n+++ b\n",
        "\x1b[1m",
        "Submodule a ",
    )
)

CASES: tuple[Case, ...] = (
    *(Case(f"create {name}", partial(_escapes, diff=_creates(name))) for name in _NAMES),
    *(Case(f"change {name}", partial(_escapes, diff=_changes(name))) for name in _NAMES),
    *(Case(f"create, quoted, {name}", partial(_escapes, diff=_quoted(name))) for name in _QUOTED),
    *(
        Case(f"{name}", partial(_escapes, diff=f"diff --git a/run.py b/EVIL\nsimilarity index 100%\n{rest}"))
        for name, rest in _MOVED
    ),
    *(Case(name, partial(_escapes, diff=diff)) for name, diff in _TRICKS),
    *(Case(f"changes heard: {name}", partial(_is_dropped, diff=diff)) for name, diff in _HEARD),
    *(
        Case(
            f"changes heard: prefixes {old!r} and {new!r}",
            partial(_is_dropped, diff=(_HEAD + _BODY).replace(" a/", f" {old}").replace(" b/", f" {new}")),
        )
        for old, new in _PREFIXES
    ),
    *_LONG,
)
