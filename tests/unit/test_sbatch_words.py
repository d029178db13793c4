"""sbatch's command line, its #SBATCH lines and its environment, read as sbatch reads them."""

from __future__ import annotations

import pytest

from hpc_agent.errors import InputError
from hpc_agent.tracking import sbatch_options
from hpc_agent.tracking.command_line import parse
from hpc_agent.tracking.sbatch_options import directives, effective


@pytest.mark.parametrize(
    ("words", "options", "script", "arguments"),
    [
        ("run.sh", {}, "run.sh", ()),
        ("run.sh -N 2 --lr=1", {}, "run.sh", ("-N", "2", "--lr=1")),
        ("-N2 -t 10 -Jname run.sh a", {"nodes": "2", "time": "10", "job-name": "name"}, "run.sh", ("a",)),
        ("--nodes=2 --time 10 run.sh", {"nodes": "2", "time": "10"}, "run.sh", ()),
        ("--part main --cpus-per-t=2 run.sh", {"partition": "main", "cpus-per-task": "2"}, "run.sh", ()),
        ("-vvW --parsable run.sh", {"verbose": "", "wait": "", "parsable": ""}, "run.sh", ()),
        ("--exclusive run.sh", {"exclusive": ""}, "run.sh", ()),
        ("--exclusive=user --nice run.sh", {"exclusive": "user", "nice": ""}, "run.sh", ()),
        ("-k run.sh", {"no-kill": ""}, "run.sh", ()),
        ("-H -Q -s -O run.sh", dict.fromkeys(("hold", "quiet", "oversubscribe", "overcommit"), ""), "run.sh", ()),
        ("--wrap hostname", {"wrap": "hostname"}, "", ()),
        ("-N 2", {"nodes": "2"}, "", ()),
        ("", {}, "", ()),
        ("-- -odd.sh a", {}, "-odd.sh", ("a",)),
        ("--site-option=1 run.sh", {"site-option": "1"}, "run.sh", ()),
        ("--site-option 1 run.sh", {"site-option": "1"}, "run.sh", ()),
        ("--site-flag run.sh", {"site-flag": ""}, "run.sh", ()),
        ("--site-flag -N 1 run.sh", {"site-flag": "", "nodes": "1"}, "run.sh", ()),
        ("-n1 : -n2 -t 5 run.sh", {"ntasks": "1"}, "run.sh", ()),
        ("--workdir=/x run.sh", {"chdir": "/x"}, "run.sh", ()),
    ],
)
def test_a_command_line_is_read_as_sbatch_reads_it(
    words: str, options: dict[str, str], script: str, arguments: tuple[str, ...]
) -> None:
    line = parse(words.split(), lambda word: word == "run.sh")
    assert (dict(line.options), line.script, line.arguments) == (options, script, arguments)
    assert list(line.words) == words.split()


def test_our_own_options_are_taken_out_and_only_before_the_script() -> None:
    line = parse(["-N2", "--clearml-project", "lab", "--clearml-tags=a,b", "run.sh", "--clearml-name=x"])
    assert line.own == {"clearml-project": "lab", "clearml-tags": "a,b"}
    assert line.words == ("-N2", "run.sh", "--clearml-name=x")
    with pytest.raises(InputError, match="--clearml-name needs a value"):
        parse(["--clearml-name"])


@pytest.mark.parametrize("words", ["-N2 run.sh a", "-N2 -- run.sh a", "-N2 --wrap x", "--export=A run.sh"])
def test_an_option_added_comes_after_all_others_and_before_the_script(words: str) -> None:
    added = parse(words.split()).with_options(["--export=B"])
    again = parse(added)
    assert again.options["export"] == "B"
    assert again.script == ("run.sh" if "run" in words else "")


def test_directives_come_before_the_first_command() -> None:
    text = (
        "#!/bin/bash\n#SBATCH -N 2 --time=10 # a comment\n# another\n\n#SBATCH --comment='a # b' \n##SBATCH -p no\n"
        "#SBATCH --mem=1G\n #SBATCH -q no\necho\n#SBATCH -A no\n"
    )
    assert directives(text) == {"nodes": "2", "time": "10", "comment": "a # b", "mem": "1G"}
    assert directives("#!/bin/bash\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n2\n") == {"ntasks": "1"}
    assert directives("#!/bin/bash\n#SBATCH --comment='open\n") == {}


def test_the_command_line_beats_the_environment_which_beats_the_script() -> None:
    text = "#!/bin/bash\n#SBATCH -p script -A script -q script --mem=1G\n"
    environ = {"SBATCH_PARTITION": "environment", "SBATCH_ACCOUNT": "environment", "SBATCH_MEM_PER_CPU": "500"}
    assert effective({"partition": "line"}, environ, text) == {
        "partition": "line",
        "account": "environment",
        "qos": "script",
        "mem-per-cpu": "500",
    }


@pytest.mark.parametrize(
    ("words", "properties"),
    [
        ("", {}),
        ("--gres=gpu:2", {"num_gpus": "2"}),
        ("--gres=gpu", {"num_gpus": "1"}),
        ("--gres=gpu:a100", {"num_gpus": "1", "gpu_type": "a100"}),
        ("--gres=lscratch:10,gres:gpu:a100:4(S:0)", {"num_gpus": "4", "gpu_type": "a100"}),
        ("--gpus=a100:8 -N2", {"num_gpus": "4", "gpu_type": "a100", "num_nodes": "2"}),
        ("-G1", {"num_gpus": "1"}),
        ("--gpus-per-node=2 -N4-8", {"num_gpus": "2", "num_nodes": "4"}),
        ("--gpus-per-task=1 -n4 -N2", {"num_gpus": "2", "num_cpus": "2", "num_nodes": "2"}),
        ("-c 8", {"num_cpus": "8"}),
        ("-n 4 -c 2", {"num_cpus": "8"}),
        ("--ntasks-per-node=4 -N2", {"num_cpus": "4", "num_nodes": "2"}),
        ("--gpus=2 --cpus-per-gpu=6", {"num_gpus": "2", "num_cpus": "12"}),
        ("--mem=32G", {"memory_gb": "32"}),
        ("--mem=512", {"memory_gb": "0.5"}),
        ("--mem=0", {}),
        ("--mem-per-cpu=2G -c 4", {"memory_gb": "8", "num_cpus": "4"}),
        ("--mem-per-gpu=16G -G2", {"memory_gb": "32", "num_gpus": "2"}),
        ("-t 1-12:00:00", {"time_limit": "1-12:00:00"}),
        ("-t UNLIMITED", {}),
        (
            "-p gpu -A lab -q high -C a100 --reservation=r",
            {"partition": "gpu", "account": "lab", "qos": "high", "constraint": "a100", "reservation": "r"},
        ),
        ("--gres=gpu:many -n all --mem=much", {"num_gpus": "1", "gpu_type": "many"}),
    ],
)
def test_what_is_asked_for_becomes_user_properties(words: str, properties: dict[str, str]) -> None:
    assert sbatch_options.resources_from_options(parse(words.split()).options) == properties


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", ()),
        ("0-3", (0, 1, 2, 3)),
        ("1-7:3%2", (1, 4, 7)),
        ("5,1,5", (5, 1)),
        ("1,4-6%1", (1, 4, 5, 6)),
        ("a-b", ()),
    ],
)
def test_the_elements_of_an_array(spec: str, expected: tuple[int, ...]) -> None:
    assert sbatch_options.elements({"array": spec}).indices == expected


@pytest.mark.parametrize(
    ("export", "option", "reaches"),
    [
        (None, "", True),
        ("ALL", "", True),
        ("all,X=1", "", True),
        ("NONE", "--export=T,B", True),
        ("X,Y=1", "--export=X,Y=1,T,B", True),
        ("NIL", "", False),
        ("T=mine", "", False),
    ],
)
def test_our_variables_travel_with_what_the_person_exports(export: str | None, option: str, reaches: bool) -> None:
    options = {} if export is None else {"export": export}
    found = sbatch_options.export(options, ["T", "B"], heterogeneous=False)
    assert (found.option, found.reaches) == (option, reaches)


def test_a_file_of_variables_and_heterogeneous_lists_are_left_alone() -> None:
    assert not sbatch_options.export({"export-file": "x"}, ["T"], heterogeneous=False).reaches
    assert not sbatch_options.export({"export": "NONE"}, ["T"], heterogeneous=True).reaches
