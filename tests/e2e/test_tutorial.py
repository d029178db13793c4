"""docs/tutorial.md does what it says: its commands run, in order, on a machine without a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ports import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
INSTALL, *COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_tutorial_run(tmp_path: Path) -> None:
    assert "pip install" in INSTALL and len(COMMANDS) >= 5
    script = "\n".join(COMMANDS).replace("--port 8008", f"--port {free_port()}")
    environ = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    environ |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    # The servers in the background are jobs of this shell, as of a person's.
    done = subprocess.run(
        ["bash", "-eum", "-c", script],
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    log = "".join(path.read_text() for path in (tmp_path / "first").glob("*.log"))
    assert done.returncode == 0, (done, log)
    assert "4 squared is 16" in done.stdout
    assert done.stdout.count('"completed"') == 3  # the first report is shown twice
    assert "worker execution exit code 3" in done.stdout
    assert len(list((tmp_path / "first" / "hpc" / "runs").glob("*/*/console.log"))) == 3
