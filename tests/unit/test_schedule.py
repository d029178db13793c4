"""When a daemon serves its queues."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from hpc_agent.domain.schedule import Schedule, parse_window, schedule, served
from hpc_agent.errors import InputError

# 2025-06-01 is a Sunday.
SUN, MON, TUE, WED, THU, FRI, SAT = range(7)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2025, 6, 1 + day, hour, minute, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("17-20 TUE", [at(TUE, 17), at(TUE, 19, 59)], [at(TUE, 16, 59), at(TUE, 20), at(MON, 18), at(WED, 18)]),
        ("17 TUE", [at(TUE, 17), at(TUE, 23, 59)], [at(TUE, 16, 59), at(WED, 0)]),
        ("0-6 MON", [at(MON, 0), at(MON, 5, 59)], [at(MON, 6), at(SUN, 23, 59)]),
        ("0 MON", [at(MON, 0), at(MON, 12), at(MON, 23)], [at(TUE, 0), at(SUN, 23)]),
        ("22-0 FRI", [at(FRI, 22), at(FRI, 23, 59)], [at(FRI, 21), at(SAT, 0)]),
        ("22-24 FRI", [at(FRI, 23, 59)], [at(SAT, 0)]),
        ("0-0 SUN", [at(SUN, 0), at(SUN, 23, 59)], [at(MON, 0)]),
        ("09-13 TUE", [at(TUE, 9)], [at(TUE, 8), at(TUE, 13)]),
        ("0-6,22 MON-FRI", [at(MON, 3), at(WED, 23), at(FRI, 5)], [at(WED, 12), at(SAT, 3), at(SUN, 23)]),
        ("8-9,11-12 SAT,SUN", [at(SAT, 8), at(SUN, 11)], [at(SAT, 9), at(SAT, 10), at(MON, 8)]),
        ("8 sun-tue,FRI", [at(SUN, 9), at(TUE, 9), at(FRI, 9)], [at(WED, 9), at(SAT, 9)]),
        ("0-24 SUN-SAT", [at(day, 12) for day in range(7)], []),
    ],
)
def test_a_window_holds_its_hours_on_its_days(text: str, inside: list[datetime], outside: list[datetime]) -> None:
    window = parse_window(text)
    assert [window.holds(time) for time in inside] == [True] * len(inside)
    assert [window.holds(time) for time in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("17-20", "expected"),
        ("TUE 17-20", '"TUE" names no hours'),
        ("20-17 TUE", "ends before it begins"),
        ("22-6 MON", '"22,0-6"'),
        ("24 MON", "beyond the 24 hours"),
        ("5-25 MON", "beyond the 24 hours"),
        ("5- MON", "names no hours"),
        ("5 FRI-MON", '"FRI-SAT,SUN-MON"'),
        ("5 TUESDAY", "none of SUN, MON"),
        ("5 ", "expected"),
    ],
)
def test_what_is_not_a_window_is_refused_with_the_form(text: str, says: str) -> None:
    with pytest.raises(InputError, match="expected") as error:
        schedule([text], [])
    assert says in str(error.value)


def test_entries_may_come_with_quotes_or_without() -> None:
    assert schedule(["17-20 TUE", "8 SAT"], []) == schedule(["17-20", "TUE", "8", "SAT"], [])


def test_uptime_is_active_inside_and_downtime_outside() -> None:
    up, down = schedule(["17-20 TUE", "9-10 MON"], []), schedule([], ["17-20 TUE", "9-10 MON"])
    for time in (at(TUE, 18), at(MON, 9)):
        assert (up.active(time), down.active(time)) == (True, False)
    assert (up.active(at(WED, 18)), down.active(at(WED, 18))) == (False, True)


def test_both_are_an_error() -> None:
    with pytest.raises(InputError, match="not both"):
        schedule(["17-20 TUE"], ["9-10 MON"])


def test_without_either_it_is_always_active() -> None:
    assert schedule([], []).active(at(SUN, 0))


def test_hours_are_those_the_clock_shows_when_it_is_put_back() -> None:
    # In Berlin, on 2025-10-26 the hour from 2 to 3 comes twice.
    window = schedule(["2-3 SUN"], [])
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2025, 10, 25, 23, tzinfo=timezone.utc)
    active = [window.active((begin + timedelta(hours=hour)).astimezone(zone)) for hour in range(5)]
    assert active == [False, True, True, False, False]


def test_an_hour_that_the_clock_skips_is_never_active() -> None:
    # In Berlin, 2025-03-30 has no hour from 2 to 3.
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2025, 3, 30, 0, tzinfo=timezone.utc)
    times = [(begin + timedelta(minutes=10 * step)).astimezone(zone) for step in range(18)]
    assert not any(schedule(["2-3 SUN"], []).active(time) for time in times)
    assert sum(schedule(["1-4 SUN"], []).active(time) for time in times) == 12


@pytest.mark.parametrize(
    ("tags", "force", "expected"),
    [
        ([], "", False),
        (["force_workers:on"], "", True),
        (["force_workers:on"], "off", True),
        (["force_workers:off"], "on", False),
        (["force_workers:off", "force_workers:on"], "", False),
        ([], "on", True),
        ([], "ON", True),
        (["other"], "maybe", False),
    ],
)
def test_the_queue_decides_before_the_server_before_the_schedule(tags: list[str], force: str, expected: bool) -> None:
    assert served(tags, force, schedule(["17-20 TUE"], []), at(MON, 12)).active is expected


def test_a_property_can_switch_off_what_has_no_schedule() -> None:
    assert not served([], "off", Schedule(), at(MON, 12)).active


def test_a_schedule_says_itself_in_words() -> None:
    assert str(schedule(["17-20,22 TUE,SAT"], [])) == "uptime 17:00-19:59, 22:00-23:59 on TUE, SAT"
    assert str(schedule([], ["0-6 MON"])) == "downtime 00:00-05:59 on MON"
    assert str(Schedule()) == "always"
