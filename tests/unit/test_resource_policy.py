"""What a task may ask for: every amount within bounds as Slurm counts it, every other value refused with a sentence."""

from __future__ import annotations

import pytest
from resource_values import RESOURCE_VALUES

from hpc_agent.config.resource_settings import OverrideSettings, QueueSettings, ResourceSettings
from hpc_agent.domain.resources import DEFAULT_OVERRIDES, PROPERTY_FIELDS, Override, Policy, Resources
from hpc_agent.errors import ResourceError
from hpc_agent.tracking import sbatch_options

ONLY_MAXIMA = QueueSettings(
    overrides={
        "memory_gb": OverrideSettings(max=2),
        "time_limit": OverrideSettings(max="01:00:00"),
        "num_cpus": OverrideSettings(max=8),
        "num_nodes": OverrideSettings(max=4),
        "num_gpus": OverrideSettings(max=2),
        "gpu_type": OverrideSettings(),
        "partition": OverrideSettings(),
    }
).policy("gpu", ResourceSettings())
"""As the README writes it."""

NO_AMOUNTS = [
    *("-1", "nan", "NaN", "inf", "-inf", "1e400", "1_000", "0x10", "1,5", "-", "."),
    *("9" * 5000, "٣", "１", "²"),
]


def whole(resources: Resources) -> None:
    """Holds what Slurm reads as no limit out of every amount."""
    assert resources.memory_mb is None or 1 <= resources.memory_mb <= 2048
    assert resources.time_minutes is None or 1 <= resources.time_minutes <= 60
    assert resources.cpus is None or 1 <= resources.cpus <= 8
    assert 1 <= resources.nodes <= 4
    assert 0 <= resources.gpus <= 2


@pytest.mark.parametrize("name", ["memory_gb", "time_limit", "num_cpus", "num_nodes", "num_gpus"])
@pytest.mark.parametrize("value", [*NO_AMOUNTS, "1e-9", "0.0001", "0-0", "00:00", "0:0:0"])
def test_no_amount_gets_below_a_floor_or_above_a_maximum(name: str, value: str) -> None:
    with pytest.raises(ResourceError) as refused:
        ONLY_MAXIMA.resources({name: value})
    assert name in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["memory_gb", "time_limit", "num_cpus", "num_nodes"])
def test_zero_which_slurm_takes_for_all_is_refused_with_the_smallest_amount(name: str) -> None:
    with pytest.raises(ResourceError, match=f'{name} is 0, but queue "gpu" allows no less than '):
        ONLY_MAXIMA.resources({name: "0"})


@pytest.mark.parametrize("settings", [OverrideSettings(min=0, max=2), OverrideSettings(min=-5), OverrideSettings()])
def test_a_site_cannot_lower_the_floor_by_a_minimum_of_its_own(settings: OverrideSettings) -> None:
    policy = QueueSettings(overrides={"memory_gb": settings}).policy("gpu", ResourceSettings())
    with pytest.raises(ResourceError, match=r"allows no less than 0\.000977"):
        policy.resources({"memory_gb": "0.0001"})


def test_a_choice_that_the_site_names_is_meant() -> None:
    policy = Policy("whole", overrides={"memory_gb": Override(choices=("16", "0"))})
    assert policy.resources({"memory_gb": "0"}).memory_mb == 0


@pytest.mark.parametrize(
    ("text", "megabytes"), [("0.001", 1), ("2", 2048), ("2.0004", 2048), (".5", 512), ("1e-03", 1), ("2.", 2048)]
)
def test_what_is_checked_is_what_slurm_is_asked_for(text: str, megabytes: int) -> None:
    resources = ONLY_MAXIMA.resources({"memory_gb": text})
    assert resources.memory_mb == megabytes
    whole(resources)


def test_memory_that_rounds_above_the_maximum_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"allows at most 2$"):
        ONLY_MAXIMA.resources({"memory_gb": "2.0005"})


def test_bounds_are_rounded_as_amounts_are() -> None:
    policy = Policy("q", overrides={"memory_gb": Override(0.001, 0.7)})
    assert policy.resources({"memory_gb": "0.001"}).memory_mb == 1
    assert policy.resources({"memory_gb": "0.7"}).memory_mb == 717


@pytest.mark.parametrize("text", ["4294967295", "525601", "366-0", "999999999-00:00:00"])
def test_a_time_limit_that_slurm_counts_wrongly_is_refused_where_no_maximum_is_set(text: str) -> None:
    with pytest.raises(ResourceError, match="time_limit is"):
        Policy("q").resources({"time_limit": text})
    assert Policy("q").resources({"time_limit": "365-0"}).time_minutes == 525_600


@pytest.mark.parametrize("value", ["a100:3", "a100,gpu:a100", "gpu:a100:8", "$(id)", "a" * 501, "ａ100"])
def test_a_gpu_type_is_one_type(value: str) -> None:
    with pytest.raises(ResourceError, match="expected one GPU type"):
        ONLY_MAXIMA.resources({"gpu_type": value})


@pytest.mark.parametrize("value", ["a b", "a'b", 'a"b', "a\nb", "a;b", "`id`", "a\u2028b", "x" * 20_000])
def test_a_name_is_one_that_slurm_could_have(value: str) -> None:
    with pytest.raises(ResourceError, match="expected a Slurm name"):
        ONLY_MAXIMA.resources({"partition": value})


def test_every_property_that_is_a_number_has_a_floor() -> None:
    """A property that is added later is refused at 0, or is not a number."""
    every = Policy("q", overrides=dict.fromkeys(PROPERTY_FIELDS, Override()))
    for name in PROPERTY_FIELDS:
        resources = every.resources({name: "7"})
        value = getattr(resources, PROPERTY_FIELDS[name])
        if isinstance(value, int):
            with pytest.raises(ResourceError):
                every.resources({name: "-1"})


def test_the_defaults_let_tasks_set_amounts_only() -> None:
    assert set(DEFAULT_OVERRIDES) == {"num_gpus", "num_cpus", "memory_gb", "time_limit"}
    with pytest.raises(ResourceError, match="does not let a task set num_nodes"):
        Policy("q").resources({"num_nodes": "2"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (OverrideSettings(max="nan"), "max is nan"),
        (OverrideSettings(max="inf"), "max is inf"),
        (OverrideSettings(min=float("nan")), "min is nan"),
        (OverrideSettings(min=4, max=2), "allows nothing: min is 4 and max 2"),
    ],
)
def test_a_bound_that_bounds_nothing_is_a_mistake_of_the_site(settings: OverrideSettings, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        settings.rule("memory_gb")


def test_a_queue_whose_memory_rounds_to_nothing_is_a_mistake_too() -> None:
    with pytest.raises(ResourceError, match="expected GiB that make a whole MiB"):
        ResourceSettings(memory_gb=0.0001)


@pytest.mark.parametrize(
    "options",
    [{"nodes": "9" * 5000}, {"cpus-per-task": "²"}, {"mem": "9" * 5000}, {"time": "9" * 5000}, {"gpus": "٣"}],
)
def test_what_cannot_be_read_on_a_command_line_is_left_out(options: dict[str, str]) -> None:
    assert (
        not {"num_nodes", "num_cpus", "memory_gb", "time_limit"} & sbatch_options.resources_from_options(options).keys()
    )


@pytest.mark.parametrize("spec", ["0-999999999", "1-9" + "9" * 5000, "1-٣", "0-4000000,0-4000000"])
def test_an_array_that_slurm_would_not_take_is_not_counted_out(spec: str) -> None:
    assert sbatch_options.elements({"array": spec}) == sbatch_options.ArrayElements()


@pytest.mark.parametrize("field", RESOURCE_VALUES)
def test_each_resource_of_the_settings_changes_what_is_asked_for(field: str) -> None:
    settings = ResourceSettings(**{field: RESOURCE_VALUES[field]})  # type: ignore[arg-type]
    assert settings.over(Resources()) != Resources()
    assert ResourceSettings().over(settings.over(Resources())) == settings.over(Resources())


@pytest.mark.parametrize("field", [name for name, value in RESOURCE_VALUES.items() if isinstance(value, str)])
@pytest.mark.parametrize("text", ["two words", "it's", 'a"b', "a\nb"])
def test_a_name_that_would_need_quotes_is_refused(field: str, text: str) -> None:
    with pytest.raises(ResourceError, match=field):
        ResourceSettings(**{field: text})  # type: ignore[arg-type]


def test_a_task_may_set_each_resource_but_the_nodes_not_to_use() -> None:
    assert set(RESOURCE_VALUES) - set(PROPERTY_FIELDS) == {"exclude"}
    assert set(PROPERTY_FIELDS) <= set(RESOURCE_VALUES)
