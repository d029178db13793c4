"""How many examples property tests look at: the same few in every run; with EXPLORE=N new ones, N times as many.

``scripts/explore`` sets EXPLORE and EXPLORE_SEED. An example that failed is kept in ``.hypothesis/examples``, and is
the first of the next exploration.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

Test = TypeVar("Test", bound=Callable[..., Any])

EXPLORE, EXPLORE_SEED = "EXPLORE", "EXPLORE_SEED"
ENOUGH = 20
"""A property that was asserted on fewer examples than this says nothing."""
FAILURES = Path(__file__).parents[2] / ".hypothesis" / "examples"


TIMES = int(os.environ.get(EXPLORE, "0"))

settings.register_profile(
    "tests",
    derandomize=not TIMES,
    database=DirectoryBasedExampleDatabase(FAILURES) if TIMES else None,
    print_blob=bool(TIMES),
    # Both go by the clock of the wall: on a busy machine they say nothing of the code.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


def limits(number: int, **more: Any) -> settings:
    """``number`` examples where EXPLORE is not set; ``more`` settings of Hypothesis."""
    return settings(max_examples=number * max(TIMES, 1), **more)


def seeded(test: Test) -> Test:
    """With the seed of the exploration, if there is one. Not pytest's ``--hypothesis-seed``: with that one Hypothesis
    keeps no example that failed. ``limits`` must be applied after it, for the same reason."""
    number = os.environ.get(EXPLORE_SEED)
    return seed(int(number))(test) if number else test


def examples(number: int, **more: Any) -> Callable[[Test], Test]:
    """Decorate a test that is ``given`` something."""

    def decorate(test: Test) -> Test:
        return limits(number, **more)(seeded(test))

    return decorate


def assert_enough(asserted: Counter[str], *names: str) -> None:
    """Fail where any of these was met in fewer than ``ENOUGH`` examples: the test would pass without its assertions."""
    few = {name: asserted[name] for name in names if asserted[name] < ENOUGH}
    assert not few, f"asserted on fewer than {ENOUGH}: {few}; the generators must reach them"
