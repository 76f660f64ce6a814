import datetime as dt

import pytest

from node.jobs import patience
from node.jobs.record import now
from node.settings import Settings

QUICK = Settings(retry_first_s=5, retry_most_s=900)


@pytest.mark.parametrize(("failures", "wait_s"), [(0, 5), (1, 5), (2, 10), (8, 640), (9, 900), (10_000, 900)])
def test_each_failure_doubles_the_wait_up_to_its_most(failures: int, wait_s: float) -> None:
    assert patience.after_failures(QUICK, failures).total_seconds() == wait_s


@pytest.mark.parametrize(("age_s", "wait_s"), [(-60, 5), (1, 5), (100, 100), (901, 900), (1e9, 900)])
def test_trouble_is_waited_for_as_long_again_as_it_has_lasted(age_s: float, wait_s: float) -> None:
    wait = patience.after_trouble(QUICK, now() - dt.timedelta(seconds=age_s))
    assert wait.total_seconds() == pytest.approx(wait_s, abs=2)
