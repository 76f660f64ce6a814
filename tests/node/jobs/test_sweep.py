"""The clock's own log. What it does is tested where its work is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from kombu.exceptions import OperationalError

from node.archive import Archive
from node.db.session import Database
from node.jobs.purge import Housekeeping
from node.jobs.sweep import Clock
from node.settings import Settings

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Ticks(threading.Event):
    """Told to stop after so many ticks."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        if not self.left:
            self.set()
        return self.is_set()


class Waker:
    """Stands for a broker that is away for the first ticks."""

    def __init__(self, failures: int, error: Callable[[], Exception]) -> None:
        self.failures, self.error = failures, error

    def wake(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error()


def test_an_outage_does_not_push_all_else_out_of_the_log(
    settings: Settings, database: Database, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    housekeeping = Housekeeping(settings, database, archive, actor="clock")
    waker = Waker(8, OperationalError)
    caplog.set_level(logging.INFO, "node.jobs.sweep")
    Clock(settings, database, waker, housekeeping, actor="clock").run(Ticks(10))  # type: ignore[arg-type]
    told = [(bool(record.exc_info), record.message) for record in caplog.records]
    assert told == [(True, "tick failed; the next one tries again"), (False, "ticks succeed again")]


def test_each_kind_of_trouble_is_told_in_full(
    settings: Settings, database: Database, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    housekeeping = Housekeeping(settings, database, archive, actor="clock")
    errors = iter([OperationalError(), OperationalError(), ZeroDivisionError()])
    Clock(settings, database, Waker(3, lambda: next(errors)), housekeeping, actor="clock").run(Ticks(3))  # type: ignore[arg-type]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OperationalError, ZeroDivisionError]
