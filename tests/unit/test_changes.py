"""Uncommitted changes as text: what they are, which files they name, and the init call that SDKs inject."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.errors import SourceError
from hpc_agent.sources.changes import apply, fix_future_imports, is_patch, read_patch, relative_to_root

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
        "\n\nFrom: a user\nSubject: a mail\n\n" + HEADER + BODY,
        BODY,
        HEADER.replace("a/", "").replace("b/", "") + BODY.replace("a/", "").replace("b/", ""),
        HEADER.replace("a/", "i/").replace("b/", "w/") + BODY.replace("a/", "i/").replace("b/", "w/"),
        HEADER + "index 1..2 100644\n" + BODY + "\\ No newline at end of file\n",
        (HEADER + BODY).replace("\n", "\r\n"),
        BODY.replace("\n", "\r\n"),
        BODY.replace("a/run", "run").replace("b/run", "run"),
        BODY.replace("a/run.py", "run.py.orig\t(revision 1)").replace("b/run.py", "run.py\t(working copy)"),
        "diff --git a/m.bin b/m.bin\nindex a..b 100644\nBinary files a/m.bin and b/m.bin differ\n" + HEADER + BODY,
    ],
)
def test_changes_are_applied_with_any_git_diff_settings(diff: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text('print("X 1")\n')
    assert is_patch(diff)
    apply(read_patch(diff), tmp_path, label="the commit")
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
    said = "\n".join(apply(read_patch(diff), tmp_path, label="the commit"))
    assert note in said
    assert not (tmp_path / "n.bin").exists()


NEW = "diff --git {0}x/run.py {1}x/run.py\nnew file mode 100644\n--- /dev/null\n+++ {1}x/run.py\n@@ -0,0 +1 @@\n+new\n"
GONE = (
    "diff --git {0}x/old.py {1}x/old.py\ndeleted file mode 100644\n--- {0}x/old.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
)
MOVED = (
    'diff --git "{0}x/k\\"i.py" {1}x/run.py\nsimilarity index 50%\nrename from "x/k\\"i.py"\n'
    'rename to x/run.py\n--- "{0}x/k\\"i.py"\n+++ {1}x/run.py\n@@ -1,2 +1,2 @@\n 1\n-2\n+new\n'
)
MADE_EMPTY = "diff --git {0}x/run.py {1}x/run.py\nnew file mode 100644\nindex 0000000..e69de29\n"


@pytest.mark.parametrize("prefixes", [("", ""), ("a/", "b/"), ("i/", "w/")])
@pytest.mark.parametrize("diff", [NEW, GONE, MOVED, MADE_EMPTY])
def test_files_that_come_and_go_keep_their_folder_without_prefixes(
    diff: str, prefixes: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    for name in ("old.py", "x/old.py", 'x/k"i.py'):
        (tmp_path / name).write_text("1\n2\n" if name == 'x/k"i.py' else "1\n")
    patch = read_patch(diff.format(*prefixes))
    apply(patch, tmp_path, label="the commit")
    assert patch.files <= {"x/run.py", "x/old.py", 'x/k"i.py'}
    assert (tmp_path / "x/run.py").exists() is (diff is not GONE)
    assert (tmp_path / "x/old.py").exists() is (diff is not GONE)
    assert (tmp_path / "old.py").exists()


@pytest.mark.parametrize("prefixes", [("", ""), ("a/", "b/"), ("i/", "w/")])
def test_renamed_file_with_a_name_in_utf_8_keeps_its_folder_without_prefixes(
    prefixes: tuple[str, str], tmp_path: Path
) -> None:
    """In Python's UTF-8 mode, in which this program runs whatever the locale."""
    program = (
        "import sys; from pathlib import Path; from hpc_agent.sources.changes import apply, read_patch\n"
        "root = Path(sys.argv[1]); (root / 'x').mkdir(); (root / 'x/k\\u00fc.py').write_text('1\\n2\\n')\n"
        "apply(read_patch(sys.stdin.read()), root, label='the commit')\n"
        "assert [path.name for path in (root / 'x').iterdir()] == ['run.py']\n"
    )
    diff = MOVED.replace('\\"i.py', "\\303\\274.py").format(*prefixes)
    argv = [sys.executable, "-X", "utf8", "-c", program, str(tmp_path)]
    done = subprocess.run(argv, input=diff.encode(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["\n", "\n\\ No newline at end of file\n"])
def test_line_feeds_alone_fit_a_file_of_cr_lf(end: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_bytes(b"import os\r\n\r\nprint(1)\r\n")
    diff = HEADER + "--- a/run.py\n+++ b/run.py\n@@ -1,3 +1,3 @@\n import os\n\n-print(1)\n+print(2)" + end
    apply(read_patch(diff), tmp_path, label="the commit")
    assert (tmp_path / "run.py").read_bytes() == b"import os\r\n\r\nprint(2)" + (b"\r\n" if end == "\n" else b"")


def test_names_that_start_from_the_scripts_folder_are_found_there(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/run.py").write_text('print("X 1")\n')
    patch = relative_to_root(read_patch(HEADER + BODY), (".", "sub"), lambda path: (tmp_path / path).exists())
    assert patch.files == {"sub/run.py"}
    apply(patch, tmp_path, label="the commit")
    assert (tmp_path / "sub/run.py").read_text() == 'print("X 2")\n'
    assert not (tmp_path / "run.py").exists()


def test_names_that_the_root_has_are_the_roots() -> None:
    patch = read_patch(HEADER + BODY)
    assert relative_to_root(patch, ("sub",), {"run.py", "sub/run.py"}.__contains__) is patch


@pytest.mark.parametrize(
    ("diff", "note"),
    [
        ("Submodule libs/foo contains modified content\n", "uncommitted changes inside a submodule are left out"),
        ("Submodule libs/foo contains untracked content\n", "never added to it are left out"),
        ("Submodule libs/foo 1a2b3c4..5d6e7f8:\n  > message\n", "another commit is left out"),
        ("Submodule my libs/foo 0000000...5d6e7f8 (new submodule)\n", "another commit is left out"),
    ],
)
def test_changes_of_submodules_alone_are_not_a_script(diff: str, note: str, tmp_path: Path) -> None:
    assert is_patch(diff)
    [said] = apply(read_patch(diff), tmp_path, label="the commit")
    assert note in said
    assert said.endswith("libs/foo")


def test_submodule_whose_changes_are_in_the_patch_has_no_note() -> None:
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
        ("DIFF --git a/x b/x\n", "no file is changed"),
    ],
)
def test_changes_that_cannot_be_applied_fail_with_a_message(diff: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text('print("X 1")\n')
    assert is_patch(diff)
    with pytest.raises(SourceError, match=words):
        apply(read_patch(diff), tmp_path, label="the commit")


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
    fixed = fix_future_imports(init + body)
    compile(fixed, "x", "exec")
    assert fixed == body.replace("import os\n", "") + init + "import os\n"


@pytest.mark.parametrize(
    "text",
    [
        INIT + "import os\n",  # nothing to repair
        "from __future__ import annotations\n" + INIT,
        "import os\nfrom __future__ import annotations\n",  # wrong, and the user's own doing
        "def broken(:\n",
        "text with \0 in it",
        INIT + "__future__" + "-" * 10_000,
        "--- " * 250_000,
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert fix_future_imports(text) == text
