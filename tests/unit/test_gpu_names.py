"""What names GPUs, and what does not."""

from __future__ import annotations

import pytest

from hpc_agent.domain.gpu_ids import parse_gpus, visible_gpus
from hpc_agent.errors import InputError


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("0", "0"),
        ("0,1,2", "0,1,2"),
        (" 0, 2 ", "0,2"),
        ("0-3", "0,1,2,3"),
        ("0,2-3,2", "0,2,3"),
        ("all", "all"),
        ("ALL", "all"),
        ("none", "none"),
        ("0.1,1:0", "0:1,1:0"),
        ("GPU-1a2b-3c", "GPU-1a2b-3c"),
        ("MIG-GPU-1a/1/0", "MIG-GPU-1a/1/0"),
    ],
)
def test_the_flag_in_the_form_of_the_variable(flag: str, names: str) -> None:
    assert parse_gpus(flag) == names


@pytest.mark.parametrize("flag", ["", "two", "0,", "3-1", "0 1", "-1", "0;rm", "0-99999"])
def test_what_names_no_gpus_is_refused(flag: str) -> None:
    with pytest.raises(InputError, match="0,1 or 0-3, or all"):
        parse_gpus(flag)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "1, 2"}, ["1", "2"]),
        ({"CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "1"}, ["0"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
    ],
)
def test_what_a_process_may_see(environ: dict[str, str], expected: list[str] | None) -> None:
    assert visible_gpus(environ) == expected
