"""Uncommitted changes as text: what they are, which files they name, and the init call that SDKs inject."""

from __future__ import annotations

import pytest

from hpc_agent.sources.changes import is_patch, mend_future_imports, read_patch

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
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert mend_future_imports(text) == text
