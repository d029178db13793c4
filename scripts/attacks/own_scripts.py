"""Secrets on the command line of ``hpc-agent sbatch``, on their way into a task that others read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attacks.case import Case
from hpc_agent.tracking.command_line import parse
from hpc_agent.tracking.describe import comment, describe
from hpc_agent.tracking.sbatch_options import ArrayElements
from hpc_agent.tracking.submission_request import read_script

DOOR = "command lines of sbatch"

_SECRET = "hunter2hunter2"
_OPTIONS = (
    *(
        "--export=ALL,TOKEN={}",
        "--export=PLAIN={},B={}",
        "--export=A=1,B='{} {}'",
        '--export=A="{},{}",B',
        "--wra=TOKEN={} run",
    ),
    *(
        "--comment=https://u:{}@h",
        "--wrap=PGPASSWORD={} psql",
        "--wrap=curl -u me:{} https://h",
        "--wrap=run --password {}",
    ),
    *("--wrap=curl -H 'Authorization: Bearer {}'", '--wrap=curl -H "X-Api-Key: {}"', "--wrap=wget https://u:{}@h/x"),
    *("--wrap=export API_TOKEN='{}'; run", "--wrap=docker run --env=TOKEN={} x", "--wrap=run ghp_{}"),
)
_ARGUMENTS = (
    *(
        "--token={}",
        "--api-key={}",
        "--hf-token={}",
        "DB_PASSWORD={}",
        "db.password={}",
        "--env=TOKEN={}",
        "hf_{}",
        "sk-{}",
    ),
    *(
        "https://u:{}@h/x",
        "Authorization: Bearer {}",
        "PRIVATE-TOKEN: {}",
        "password:{}",
        '{{"token": "{}"}}',
        "postgresql://u:{}@db",
    ),
)
_PAIRS = (("--token", "{}"), ("--password", "{}"), ("--wandb-api-key", "{}"), ("-u", "me:{}"), ("-H", "Cookie: {}"))


def _shows(*words: str) -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        (folder / "job.sh").write_text("#!/bin/bash\ntrue\n", encoding="utf-8")
        command = parse([word.format(*[_SECRET] * word.count("{}")) for word in words])
        described = describe(read_script(command, folder, lambda: b"").submitted, ArrayElements())
        texts = {
            "comment": comment(command, described.notes, "Submitted"),
            "entry point": described.script.entry_point,
            "script": described.script.diff,
        }
        return next((f"the {name}: {text}" for name, text in texts.items() if _SECRET in text), "")

    return attempt


CASES: tuple[Case, ...] = (
    *(Case(f"option {word!a}", _shows(word, *([] if word.startswith("--wr") else ["job.sh"]))) for word in _OPTIONS),
    *(Case(f"option {word!a}, its value apart", _shows(*word.split("=", 1), "job.sh")) for word in _OPTIONS[:4]),
    *(Case(f"argument {word!a}", _shows("job.sh", word)) for word in _ARGUMENTS),
    *(Case(f"arguments {' '.join(pair)!a}", _shows("job.sh", *pair)) for pair in _PAIRS),
)
