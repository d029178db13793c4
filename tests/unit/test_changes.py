"""Uncommitted changes as text: what they are, which files they name, and the init call that SDKs inject."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.errors import SourceError
from hpc_agent.sources.changes import apply, is_patch, mend_future_imports, read_patch

PATCH = """diff --git a/old.py b/old.py
--- a/old.py
+++ b/old.py
@@ -1,2 +1 @@
--- a/not-a-file.py
-x
+++ b/nor-this.py
diff --git a/new.py b/new.py
new file mode 100644
--- /dev/null
+++ b/new.py
@@ -0,0 +1 @@
+x
diff --git "a/w\\303\\251 \\"q\\".py" "b/w\\303\\251 \\"q\\".py"
--- "a/w\\303\\251 \\"q\\".py"
+++ "b/w\\303\\251 \\"q\\".py"
@@ -1 +1 @@
-a
+b
diff --git a/with space.py b/with space.py
--- a/with space.py\t
+++ b/with space.py\t
@@ -1 +1 @@
-a
+b
"""


@pytest.mark.parametrize(
    ("text", "patch"),
    [
        (PATCH, True),
        ("\n  DIFF --git a/x b/x", True),
        ("Submodule lib 1..2:\ndiff --git a/lib/x b/lib/x", True),
        ("Submodule is a word\nprint()", False),
        ("import x", False),
        ("difference = 1", False),
        ("", False),
    ],
)
def test_only_what_begins_like_one_is_a_patch(text: str, patch: bool) -> None:
    assert is_patch(text) is patch


BODY = '--- a/run.py\n+++ b/run.py\n@@ -1 +1 @@\n-print("X 1")\n+print("X 2")\n'
HEADER = "diff --git a/run.py b/run.py\n"
COLOURED = (
    "\x1b[1mdiff --git a/run.py b/run.py\x1b[m\n\x1b[1m--- a/run.py\x1b[m\n\x1b[1m+++ b/run.py\x1b[m\n"
    '\x1b[36m@@ -1 +1 @@\x1b[m\n\x1b[31m-print("X 1")\x1b[m\n\x1b[32m+\x1b[m\x1b[32mprint("X 2")\x1b[m\n'
)
SUBMODULE = "Submodule libs/foo contains modified content\nSubmodule libs/foo 1111111..2222222:\n"


@pytest.mark.parametrize(
    "diff",
    [
        HEADER + BODY,
        SUBMODULE + HEADER + BODY,
        COLOURED,
        SUBMODULE + COLOURED,
        "\ufeff" + HEADER + BODY,
        "\ufeff" + COLOURED,
        "warning: LF will be replaced by CRLF in run.py\n" + HEADER + BODY,
        "\n\nFrom: somebody\nSubject: a mail\n\n" + HEADER + BODY,
        BODY,
        HEADER.replace("a/", "").replace("b/", "") + BODY.replace("a/", "").replace("b/", ""),
        HEADER.replace("a/", "i/").replace("b/", "w/") + BODY.replace("a/", "i/").replace("b/", "w/"),
        HEADER + "index 1..2 100644\n" + BODY + "\\ No newline at end of file\n",
        "diff --git a/m.bin b/m.bin\nindex a..b 100644\nBinary files a/m.bin and b/m.bin differ\n" + HEADER + BODY,
    ],
)
def test_changes_are_applied_however_git_was_told_to_print_them(diff: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text('print("X 1")\n')
    assert is_patch(diff)
    apply(diff, tmp_path, shown="the commit")
    assert 'print("X 2")' in (tmp_path / "run.py").read_text()


@pytest.mark.parametrize(
    ("diff", "note"),
    [
        (SUBMODULE + HEADER + BODY, "libs/foo"),
        (
            "diff --git a/lib b/lib\nindex 1111..2222 160000\n--- a/lib\n+++ b/lib\n@@ -1 +1 @@\n-Subproject commit 1\n"
            "+Subproject commit 2\n" + HEADER + BODY,
            "submodule to another commit is left out (commit and push it): lib",
        ),
        (
            "diff --git a/n.bin b/n.bin\nnew file mode 100644\nBinary files /dev/null and b/n.bin differ\n"
            + HEADER
            + BODY,
            "n.bin",
        ),
        ("diff --git a/n.bin b/n.bin\nindex 1..2 100644\nBinary files a/n.bin and b/n.bin differ\n", "n.bin"),
    ],
)
def test_changes_that_git_leaves_out_are_named(diff: str, note: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text('print("X 1")\n')
    [said] = apply(diff, tmp_path, shown="the commit")
    assert note in said
    assert not (tmp_path / "n.bin").exists()


def test_submodule_whose_changes_are_in_the_patch_is_no_loss() -> None:
    inner = (HEADER + BODY).replace("run.py", "libs/foo/run.py")
    assert read_patch("Submodule libs/foo 1111111..2222222:\n" + inner).notes == ()


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        (
            "diff --cc run.py\nindex 1,2..0\n--- a/run.py\n+++ b/run.py\n@@@ -1,1 -1,1 +1,1 @@@\n",
            "conflicts of a merge",
        ),
        (HEADER + BODY + "diff --cc x.py\n", "conflicts of a merge"),
        ("* Unmerged path run.py\n" + HEADER + BODY, "conflicts of a merge"),
        ("diff --git a/run.py b/run.py\n", "do not fit"),
        ("DIFF --git a/x b/x\n", "no change of a file"),
    ],
)
def test_changes_that_nobody_can_apply_fail_with_a_sentence(diff: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text('print("X 1")\n')
    assert is_patch(diff)
    with pytest.raises(SourceError, match=words):
        apply(diff, tmp_path, shown="the commit")


def test_renames_and_content_like_headers_are_understood() -> None:
    patch = read_patch(
        "diff --git a/old name.py b/new name.py\nsimilarity index 90%\nrename from old name.py\nrename to new name.py\n"
        "--- a/old name.py\t\n+++ b/new name.py\t\n@@ -1,2 +1,2 @@\n x\n--- a/fake.py\n+++ b/fake.py\n"
    )
    assert patch.files == {"old name.py", "new name.py"}


def test_script_without_a_repository_may_quote_a_patch() -> None:
    text = f'PATCH = """\n{HEADER}{BODY}"""\nprint(PATCH)\n'
    assert not is_patch(text, of_repository=False)
    assert is_patch(HEADER + BODY, of_repository=False)


@pytest.mark.parametrize(
    "piece", ["--- ", '--- "\\\\', "diff --git ", '"', "\\", "@@ -1 +1 @@\n", "--- a\n+++ b\n", "\x1b["]
)
def test_long_texts_are_read_in_one_pass(piece: str) -> None:
    text = piece * 100_000
    assert is_patch(text) in (True, False)
    read_patch(text)


def test_old_side_names_what_must_be_there() -> None:
    patch = read_patch(PATCH)
    assert patch.old == ("old.py", 'wé "q".py', "with space.py")
    assert patch.files == {"old.py", "new.py", 'wé "q".py', "with space.py"}
    assert patch.created == {"new.py"}


INIT = "try: from allegroai import Task\nexcept ImportError: from clearml import Task\n" \
       '(__name__ != "__main__") or Task.init()\n\n'  # fmt: skip
OLD_INIT = 'from clearml import Task\n(__name__ != "__main__") or Task.init()\n'


@pytest.mark.parametrize("init", [INIT, OLD_INIT])
def test_injected_call_moves_below_future_imports(init: str) -> None:
    body = '"""About."""\n# a comment\nfrom __future__ import (\n    annotations,\n    division,\n)\nimport os\n'
    mended = mend_future_imports(init + body)
    compile(mended, "x", "exec")
    assert mended == body.replace("import os\n", "") + init + "import os\n"


@pytest.mark.parametrize(
    "text",
    [
        INIT + "import os\n",  # nothing to mend
        "from __future__ import annotations\n" + INIT,
        "import os\nfrom __future__ import annotations\n",  # wrong, and the user's own doing
        "def broken(:\n",
        "text with \0 in it",
        INIT + "__future__" + "-" * 10_000,
        "--- " * 250_000,
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert mend_future_imports(text) == text
