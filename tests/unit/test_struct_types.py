"""Types that several threads decode to for the first time at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from syntax_trees import syntax_nodes

PACKAGE = Path(__file__).parents[2] / "hpc_agent"

FIRST_USES = """
import sys, threading
from typing import Optional
import msgspec
from hpc_agent.struct_types import decodable

sys.setswitchinterval(1e-6)
DATA = b'{"a9": {"b29": 3}, "c4": {"x": [{"b3": 4}]}}'
for number in range(50):
    inner = msgspec.defstruct(f"Inner{number}", [(f"b{i}", Optional[int], None) for i in range(30)])
    fields = [(f"a{i}", Optional[inner], None) for i in range(10)]
    outer = msgspec.defstruct(f"Outer{number}", fields + [(f"c{i}", dict[str, list[inner]], {}) for i in range(5)])
    together = threading.Barrier(8)

    def decode():
        together.wait()
        assert msgspec.json.decode(DATA, type=decodable(outer)).a9.b29 == 3

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""


def test_threads_that_use_a_type_for_the_first_time_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_every_type_that_is_decoded_to_is_decodable_by_threads() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path in PACKAGE.rglob("*.py")
        for call in syntax_nodes(path)
        if isinstance(call, ast.Call) and (kind := _decoded_type(call)) and not kind.startswith("decodable(")
    ]
    assert found == []


def _decoded_type(call: ast.Call) -> str:
    """The type that a call of msgspec names; empty if it names none, or is no such call."""
    name = ast.unparse(call.func)
    if name == "msgspec.convert":
        return ast.unparse(call.args[1])
    named = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
    return ast.unparse(named[0]) if name == "msgspec.json.decode" and named else ""
