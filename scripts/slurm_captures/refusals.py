"""Submissions that Slurm accepts, refuses, or puts off."""

from __future__ import annotations

from slurm_captures.bench import Bench

_DIRECTIVES = {
    "array_too_large": "--array=0-100000",
    "bad_option": "--no-such-option",
    "bad_time": "--time=soon",
    "too_long": "--partition=short\n#SBATCH --time=60",
    "too_many_cpus": "--ntasks=1\n#SBATCH --cpus-per-task=1000",
    "too_many_gpus": "--gres=gpu:99",
    "too_many_nodes": "--nodes=99",
    "too_much_memory": "--mem=999G",
    "unknown_account": "--account=nope",
    "unknown_feature": "--constraint=nope",
    "unknown_gpu_type": "--gres=gpu:nope:1",
    "unknown_gres": "--gres=nope:1",
    "unknown_node": "--nodelist=nope",
    "unknown_partition": "--partition=nope",
    "unknown_qos": "--qos=nope",
    "unknown_reservation": "--reservation=nope",
}


def capture(bench: Bench) -> None:
    bench.ask_sbatch("sbatch_accepted", bench.script("accepted", "--hold"))
    for name, directive in _DIRECTIVES.items():
        bench.ask_sbatch(f"sbatch_refused_{name}", bench.script(name, directive))
    missing = bench.script("missing_script")
    missing.script.unlink()
    bench.ask_sbatch("sbatch_refused_missing_script", missing)
    for name, text in {
        "sbatch_refused_no_shebang": "true\n",
        "sbatch_refused_dos": "#!/bin/bash\r\ntrue\r\n",
        "sbatch_unforeseen_nul": "#!/bin/bash\ntrue \0\n",
    }.items():
        request = bench.script("script")
        request.script.write_text(text)
        bench.ask_sbatch(name, request)
    bench.submit("the single one", "--qos=single", "--hold")
    bench.ask_sbatch("sbatch_later_submit_limit", bench.script("single", "--qos=single"))
