"""docs/server.md says what the table of roles says."""

from __future__ import annotations

from pathlib import Path

from hpc_agent.server.roles import PERMISSIONS, Permission, Scope

PAGE = Path(__file__).parents[2] / "docs" / "server.md"


def described(row: Permission, scope: Scope) -> str:
    if scope is not Scope.OWN:
        return {Scope.ALL: "yes", Scope.NONE: "no"}[scope]
    own = [target.kind.value for target in row.own] or [" or ".join(target.kind.value for target in row.or_own)]
    return f"own {', '.join(dict.fromkeys(own))}"


def test_the_page_lists_every_endpoint_with_who_may_call_it() -> None:
    rows = [
        f"| `{name}` | {described(row, row.user)} | {described(row, row.task)} |" for name, row in PERMISSIONS.items()
    ]
    table = "\n".join(["| endpoint | user | task |", "|---|---|---|", *rows])
    listed = PAGE.read_text().partition("<!-- endpoints -->\n")[2].partition("\n<!-- end of endpoints -->")[0]
    assert listed == table
