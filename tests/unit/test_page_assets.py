"""The libraries that the web page loads are those that their table lists, and templates refer to files that exist."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "hpc_agent" / "server" / "page"
VENDOR = PAGE / "static" / "vendor"


def test_vendored_libraries_are_what_their_table_lists() -> None:
    table = (VENDOR / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([^`]+\.gz)` .* `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    present = {
        file.name: hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest() for file in VENDOR.glob("*.gz")
    }
    assert present == listed
    assert len(present) == 2
    for licence in re.findall(r"`(LICENSE-[\w.]+)`", table):
        assert (VENDOR / licence).stat().st_size > 100


def test_templates_and_scripts_name_files_that_exist() -> None:
    names = {file.name.removesuffix(".gz") for file in (PAGE / "static").rglob("*") if file.is_file()}
    texts = {file: file.read_text(encoding="utf-8") for file in (PAGE / "templates").rglob("*.html")}
    named = {name for text in texts.values() for name in re.findall(r"static\('([^']+)'\)", text)}
    assert len(named) >= 6
    assert named - names == set()


def test_templates_have_no_inline_script_style_or_other_host() -> None:
    for file in (PAGE / "templates").rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"<script(?! src=\"\{\{ static)|<style|\sstyle=|\son[a-z]+=|hx-on|https?://", text) == [], (
            file
        )
