"""``hpc-agent init`` on a real Slurm: what it finds out, writes, keeps of edits, asks and refuses."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import HANG_S

from hpc_agent.config.load import load
from hpc_agent.config.settings import HpcSettings

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SERVER = 'api { api_server: "http://localhost:8008", credentials { access_key: KEY, secret_key: hidden } }\n'
REFUSES = """#!/bin/bash
for word; do
    case $word in {words}) echo "sbatch: error: this site wants it otherwise" >&2; exit 1 ;; esac
done
exec {real} "$@"
"""
"""A site's wrapper of sbatch that forbids some options."""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "clearml.conf"
    file.write_text(SERVER)
    return file


@pytest.fixture
def init(slurm_cluster: Any, tmp_path: Path) -> Run:
    def run(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "hpc_agent", "init", *flags]
        env = environment(slurm_cluster.env, tmp_path, **environ)
        return subprocess.run(argv, env=env, text=True, capture_output=True, timeout=HANG_S, check=False, input="")

    return run


def environment(cluster: Any, home: Path, **environ: str) -> dict[str, str]:
    names = ("SCRATCH", "WORK", "PROJECT", "DATA", "XDG_CONFIG_HOME")
    return {**{k: v for k, v in cluster.items() if k not in names}, "HOME": str(home), "LC_ALL": "C.UTF-8", **environ}


def settings(conf: Path, **environ: str) -> HpcSettings:
    return load(conf, environ).settings.hpc


def written(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- what is found out


def test_the_cluster_is_found_out_and_nothing_is_written_on_a_dry_run(init: Run, conf: Path) -> None:
    found = json.loads(written(init("--json", "--dry-run")))
    cluster = found["site"]["cluster"]
    assert cluster["scheduler"].startswith("Slurm 2") and cluster["cluster"] == "hpcagent"
    partitions = {partition["name"]: partition for partition in cluster["partitions"]}
    assert partitions.keys() == {"main", "short", "urgent", "scavenge"}
    assert partitions["main"]["default"] and partitions["main"]["default_time"] == 60
    assert partitions["short"]["time_limit"] == 5
    assert {account["name"] for account in cluster["accounts"] if account["default"]} == {"lab"}
    assert cluster["qos"]["single"] == {"MaxSubmitPU": "1"}
    assert (cluster["limits"]["MaxArraySize"], cluster["limits"]["MinJobAge"]) == ("1001", "300 sec")
    assert {key: finding["value"] for key, finding in cluster["settings"].items()} == {
        "accounting": "sacct",
        "gpu_flag": "gres",
        "memory_flag": "mem",
    }
    assert cluster["unanswered"] == []
    assert [node["gpus"] for node in cluster["nodes"]] == [
        [{"kind": kind, "total": 4, "free": 4}] for kind in ("a100", "a100", "h100")
    ]
    assert found["site"]["folders"][0]["source"] == "home"
    assert conf.read_text(encoding="utf-8") == SERVER and list(conf.parent.iterdir()) == [conf]


def test_what_a_site_forbids_is_not_proposed(init: Run, slurm_cluster: Any, tmp_path: Path, conf: Path) -> None:
    real = subprocess.run(["which", "sbatch"], env=slurm_cluster.env, text=True, capture_output=True, check=True)
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    path = f"{wrapper.parent}:{slurm_cluster.env['PATH']}"

    def forbid(words: str) -> None:
        wrapper.write_text(REFUSES.format(words=words, real=real.stdout.strip()))
        wrapper.chmod(0o755)

    forbid("--gres=*|--mem=*")
    written(init("--yes", PATH=path))
    assert "# sbatch --test-only accepts --gpus-per-node=1." in conf.read_text(encoding="utf-8")
    hpc = load(conf, {}).tree["hpc"]["slurm"]
    assert (hpc["gpu_flag"], hpc["memory_flag"]) == ("gpus-per-node", "mem-per-cpu")
    # A site that wants the type named.
    forbid("--gres=gpu:1|--gpus*=1")
    assert "gres: sbatch --test-only accepts --gres=gpu:a100:1" in init("--dry-run", PATH=path).stdout
    forbid("--gres=*|--gpus*")
    done = init("--yes", PATH=path)
    assert "how GPUs are asked for: sbatch --test-only refuses every spelling" in " ".join(done.stdout.split())
    assert "this site wants it otherwise" in conf.read_text(encoding="utf-8")


def test_a_cluster_without_an_answer_from_accounting_is_described_all_the_same(
    init: Run, slurm_cluster: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "bin" / "sacctmgr"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'sacctmgr: error: slurmdbd: Connection refused' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = init("--json", "--dry-run", PATH=f"{broken.parent}:{slurm_cluster.env['PATH']}")
    cluster = json.loads(written(done))["site"]["cluster"]
    assert cluster["accounts"] == [] and "gpu_flag" in cluster["settings"]
    [sentence] = cluster["unanswered"]
    assert sentence.startswith("your accounts and QOS are not known: ") and "Connection refused" in sentence


@pytest.fixture
def without_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a cluster that has no slurmdbd."""
    folder = ("--dir", str(tmp_path_factory.mktemp("bare")))
    script = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "slurm-cluster")]
    argv = [*script, "start", "--no-accounting", "--json", *folder]
    started = subprocess.run(argv, text=True, capture_output=True, timeout=HANG_S, check=False)
    try:
        assert started.returncode == 0, started.stderr
        yield json.loads(started.stdout)["env"]
    finally:
        subprocess.run([*script, "stop", *folder], capture_output=True, check=False)


def test_a_cluster_without_accounting(init: Run, conf: Path, without_accounting: dict[str, str]) -> None:
    printed = written(init("--yes", **without_accounting))
    assert "no accounting: how jobs ended is known to the controller only, for 300 s" in " ".join(printed.split())
    assert "accounts" not in printed
    slurm = load(conf, {}).tree["hpc"]["slurm"]
    assert slurm == {"accounting": "none", "gpu_flag": "gres", "memory_flag": "mem"}


def test_a_controller_that_is_away_is_reported_and_nothing_is_written(init: Run, conf: Path, tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\n")
    conf.write_text(SERVER + "hpc { slurm { command_timeout: 2 } }\n", encoding="utf-8")
    done = init("--yes", SLURM_CONF=str(tmp_path / "slurm.conf"))
    assert (done.returncode, done.stdout) == (69, "")
    assert "hpc-agent init" not in conf.read_text(encoding="utf-8")


# ---------------------------------------------------------------- what is written


def test_the_section_suits_the_cluster_and_the_choices(init: Run, conf: Path) -> None:
    printed = written(init("--yes", "--queue", "gpu", "cpu", "--partition", "short", "--account", "lab"))
    assert f"{conf}: changed" in printed and "daemon --queue gpu cpu --create-queue --once" in printed
    hpc = settings(conf)
    assert set(hpc.queues) == {"gpu", "cpu"}
    resources = hpc.queue("gpu").policy("gpu", hpc.resources).resources({"num_gpus": "4", "gpu_type": "h100"})
    assert (resources.partition, resources.account, resources.gpus, resources.time_minutes) == ("short", "lab", 4, 5)
    assert conf.read_text(encoding="utf-8").startswith(SERVER)


def test_a_second_run_changes_nothing_and_remembers_the_choices(init: Run, conf: Path) -> None:
    written(init("--yes", "--queue", "train", "--partition", "urgent", "--account", "root"))
    before = conf.read_text(encoding="utf-8")
    assert f"{conf} is up to date" in written(init("--yes"))
    assert conf.read_text(encoding="utf-8") == before


def test_edits_survive_while_the_rest_follows(init: Run, conf: Path) -> None:
    written(init("--yes", "--queue", "train", "--partition", "main"))
    text = conf.read_text(encoding="utf-8")
    text = text.replace("num_gpus: 1", "num_gpus: 2  # mine").replace("gpu_flag: gres", "gpu_flag: gpus")
    text = text.replace("hpc {\n", "hpc {\n    max_jobs: 7\n", 1).replace(SERVER, SERVER + "agent.worker_name: me\n")
    conf.write_text(text, encoding="utf-8")
    written(init("--yes", "--partition", "short"))
    text = conf.read_text(encoding="utf-8")
    hpc = settings(conf)
    assert "num_gpus: 2  # mine" in text and "gpu_flag: gpus" in text and "agent.worker_name: me" in text
    assert hpc.max_jobs == 7
    assert hpc.queue("train").resources.partition == "short"
    assert (hpc.queue("train").overrides or {})["time_limit"].max == "00:05:00"
    done = written(init("--yes", "--partition", "main", "--queue", "train"))
    assert hpc.queue("train").resources.num_gpus == 2
    assert "Your edit was kept" not in done


def test_what_the_sites_file_sets_is_a_comment_in_the_users(init: Run, conf: Path, tmp_path: Path) -> None:
    site = str(tmp_path / "site.conf")
    printed = written(init("--site", "--yes", "--queue", "lab", HPC_AGENT_SITE_CONFIG=site))
    assert "each user" in printed
    assert stat.S_IMODE(Path(site).stat().st_mode) == 0o644
    assert conf.read_text(encoding="utf-8") == SERVER
    assert str(tmp_path) not in Path(site).read_text(encoding="utf-8")
    written(init("--yes", HPC_AGENT_SITE_CONFIG=site))
    assert f"# scheduler: slurm    (set in {site})" in conf.read_text(encoding="utf-8")
    hpc = settings(conf, HPC_AGENT_SITE_CONFIG=site)
    assert (hpc.scheduler, set(hpc.queues)) == ("slurm", {"lab", "default"})


def test_what_the_rest_of_the_file_sets_is_a_comment_in_the_section(init: Run, conf: Path) -> None:
    conf.write_text(
        SERVER + "hpc { resources { account: root }, queues { default { resources { num_gpus: 3 } } } }\n",
        encoding="utf-8",
    )
    written(init("--yes", "--account", "lab"))
    hpc = settings(conf)
    assert (hpc.resources.account, hpc.queue("default").resources.num_gpus) == ("root", 3)
    assert "# num_gpus: 1    (set in " in conf.read_text(encoding="utf-8")


def test_a_new_file_is_private(init: Run, tmp_path: Path) -> None:
    written(init("--yes"))
    file = tmp_path / "clearml.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "There is no ClearML server in the configuration" in init("--yes").stdout
    written(init("--yes", "--file", str(tmp_path / "other.conf")))
    assert settings(tmp_path / "other.conf").scheduler == "slurm"


# ---------------------------------------------------------------- the daemon as a service


def test_a_systemd_unit_is_written_and_edits_of_it_stay(init: Run, conf: Path, tmp_path: Path) -> None:
    unit = tmp_path / ".config" / "systemd" / "user" / "hpc-agent.service"
    printed = written(init("--yes", "--queue", "a b", "--service", "systemd"))
    assert f"{unit}: written" in printed and "systemctl --user enable --now hpc-agent" in printed
    assert 'daemon --queue "a b" --foreground' in unit.read_text()
    assert "Environment=SLURM_CONF=" in unit.read_text()
    unit.write_text(unit.read_text().replace("RestartSec=30", "RestartSec=5"))
    written(init("--yes", "--queue", "c", "--service", "systemd"))
    assert "daemon --queue c --foreground" in unit.read_text() and "RestartSec=5" in unit.read_text()


def test_a_line_for_cron_is_printed(init: Run, conf: Path, tmp_path: Path) -> None:
    printed = written(init("--yes", "--service", "cron", "--file", str(tmp_path / "my.conf")))
    [line] = [line.strip() for line in printed.splitlines() if line.strip().startswith("*/5 ")]
    assert "SLURM_CONF=" in line and f"--config-file {tmp_path}/my.conf daemon --queue default --once" in line
    assert "crontab -e" in printed


def test_scrontab_is_offered_where_the_site_has_it(init: Run, slurm_cluster: Any, conf: Path, tmp_path: Path) -> None:
    refused = init("--yes", "--service", "scrontab")
    assert refused.returncode == 2 and "have not switched it on" in refused.stderr
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    # The real answer, as it would be with ScronParameters=enable.
    real = subprocess.run(["which", "scontrol"], env=slurm_cluster.env, text=True, capture_output=True, check=True)
    changed = "s/^(ScronParameters *= ).*/\\1enable/"
    scontrol.write_text(f"#!/bin/sh\n{real.stdout.strip()} \"$@\" | sed -E '{changed}'\n")
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}:{slurm_cluster.env['PATH']}"
    printed = written(init("--yes", "--service", "scrontab", "--partition", "short", "--account", "lab", PATH=path))
    lines = [line.strip() for line in printed.splitlines()]
    assert "#SCRON --partition=short" in lines and "#SCRON --account=lab" in lines
    assert [line for line in lines if line.startswith("*/5 * * * * ") and "--once" in line]


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--partition", "mian"), 'no partition that you may use is named "mian"; there are: main, short'),
        (("--partition", "main,mian"), 'named "mian"'),
        (("--account", "nope"), 'no account that you may use is named "nope"; there are: '),
        (("--qos", "nope"), 'no QOS that you may use is named "nope"; there are: normal, single'),
        (("--queue", 'a"b'), "cannot be the name of a queue"),
        (("--queue", ""), "cannot be the name of a queue"),
        (("--root", "relative"), "--root is relative, expected an absolute path"),
        (("--root", "/dev/null/x"), "/dev/null is not a folder that you may write to"),
        (("--scheduler", "nope"), "hpc.scheduler is 'nope', expected one of: auto, slurm"),
        (("--scheduler", "gridengine"), "whose commands are not on PATH"),
        (("--service", "upstart"), "is not one of 'none', 'systemd', 'cron', 'scrontab'"),
        (("--file", "/nowhere/clearml.conf"), "there is no folder /nowhere"),
        (("--site", "--file", "x"), "--site and --file name two files"),
    ],
)
def test_wrong_flags_are_refused_in_a_sentence_and_nothing_is_written(
    init: Run, conf: Path, flags: Sequence[str], words: str
) -> None:
    done = init("--yes", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert conf.read_text(encoding="utf-8") == SERVER and list(conf.parent.iterdir()) == [conf]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{ "api": {} }', "is one { … }, to which no section can be added"),
        ("hpc { max_job: 3 }", "unknown key hpc.max_job"),
        ("hpc {", "is not valid HOCON"),
        ("hpc: 3", "hpc is 3, expected a section"),
        ("# >>> hpc-agent init >>>\n", "expected one of each"),
    ],
)
def test_a_file_that_cannot_take_the_section_stays_as_it_is(init: Run, conf: Path, text: str, words: str) -> None:
    conf.write_text(text, encoding="utf-8")
    done = init("--yes")
    assert done.returncode == 2
    assert words in done.stderr
    assert conf.read_text(encoding="utf-8") == text and list(conf.parent.iterdir()) == [conf]


def test_an_edit_that_breaks_the_file_is_reported_before_anything_is_written(init: Run, conf: Path) -> None:
    written(init("--yes"))
    broken = conf.read_text(encoding="utf-8").replace("scheduler: slurm", "scheduler: slrum")
    conf.write_text(broken, encoding="utf-8")
    done = init("--yes", "--partition", "short")
    assert done.returncode == 2 and "hpc.scheduler is 'slrum'" in done.stderr
    assert conf.read_text(encoding="utf-8") == broken


# ---------------------------------------------------------------- on a terminal


def on_a_terminal(argv: Sequence[str], environ: dict[str, str], answers: Sequence[tuple[str, str]]) -> str:
    """All that the program showed; each answer is typed when its question has been shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], list(argv), environ)
    shown = ""
    remaining = list(answers)
    seen = 0
    try:
        while select.select([terminal], [], [], HANG_S)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            shown += data.decode()
            if remaining and remaining[0][0] in shown[seen:] and shown.endswith(": "):
                seen = len(shown)
                os.write(terminal, remaining.pop(0)[1].encode() + b"\n")
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert remaining == [], shown
    assert os.waitstatus_to_exitcode(status) == 0, shown
    return shown


def test_a_person_is_asked_with_the_proposals_as_defaults(slurm_cluster: Any, tmp_path: Path) -> None:
    shown = on_a_terminal(
        [sys.executable, "-m", "hpc_agent", "init"],
        environment(slurm_cluster.env, tmp_path, COLUMNS="100"),
        [
            ("Address of the API server", "server"),
            ("Address of the API server", "http://localhost:8008"),
            ("Access key", "KEY"),
            ("Secret key", 'se"cret'),
            ("ClearML queues to serve", "gpu 'two words'"),
            ("Partition of their jobs", "mian"),
            ("Partition of their jobs", "short"),
            ("Account to charge", ""),
            ("Folder for our files", f"{tmp_path}/hpc"),
            ("Keep the daemon running by", "cron"),
        ],
    )
    assert 'api.api_server is "server", expected a URL' in shown
    assert 'no partition that you may use is named "mian"' in shown
    assert "Looking at nodes (sinfo)" in shown
    assert 'se"cret' not in shown
    configuration = load(tmp_path / "clearml.conf", {}).settings
    assert (configuration.api.access_key, configuration.api.secret_key.reveal()) == ("KEY", 'se"cret')
    assert set(configuration.hpc.queues) == {"gpu", "two words"}
    assert configuration.hpc.queue("gpu").resources.partition == "short"
    assert (configuration.hpc.resources.account, configuration.hpc.root) == (None, tmp_path / "hpc")
    assert "crontab -e" in shown
