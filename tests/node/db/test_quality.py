from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy.exc import IntegrityError

from node.db import quality
from node.db.quality import SeriesQuality
from node.db.session import Database
from node.db.tables import QualityRow
from seeded.scores import CHEST, FORCE, MODEL, add_score

DAY = dt.date(2026, 10, 1)


def since(database: Database, day: dt.date = DAY) -> list[SeriesQuality]:
    with database.read() as session:
        return quality.series_between(session, day, dt.date.max)


def test_nothing_is_known_of_an_empty_node(database: Database) -> None:
    assert since(database) == []
    with database.read() as session:
        assert quality.last_acquired(session) is None
        assert quality.of_series(session, "1.2") is None


def test_a_series_tells_all_that_the_watch_needs(database: Database) -> None:
    with database.write() as session:
        job = add_score(session, "1.2", DAY, 2.5, study="1", poor=3)
        blank = add_score(session, "1.3", DAY, None, study="1", reason="not of the trunk")
    assert since(database) == [
        SeriesQuality(job, "1", FORCE, CHEST, MODEL, DAY, 2.5, 3, ""),
        SeriesQuality(blank, "1", FORCE, CHEST, MODEL, DAY, None, 0, "not of the trunk"),
    ]


def test_only_the_newest_row_of_a_series_counts_whatever_it_says(database: Database) -> None:
    with database.write() as session:
        add_score(session, "1.2", DAY, 2.5, study="1")
        add_score(session, "1.3", DAY, 3.5, study="1")
        newest = add_score(session, "1.2", DAY, None, study="1", model="another 1", reason="too few images")
    found = {one.job_id: one.median for one in since(database)}
    assert (len(found), found[newest]) == (2, None)
    with database.read() as session:
        row = quality.of_series(session, "1.2")
        assert row is not None
        assert (row.job_id, row.reason) == (newest, "too few images")


def test_an_old_row_does_not_come_back_because_the_newest_has_another_day(database: Database) -> None:
    with database.write() as session:
        add_score(session, "1.2", DAY, 2.5)
        add_score(session, "1.2", DAY - dt.timedelta(days=1), 2.4)
    assert since(database) == []


def test_days_before_are_left_out_and_the_day_itself_is_not(database: Database) -> None:
    with database.write() as session:
        add_score(session, "1.2", DAY - dt.timedelta(days=1), 2.5)
        add_score(session, "1.3", DAY, 2.6)
        add_score(session, "1.4", DAY + dt.timedelta(days=1), 2.7)
    assert [one.median for one in since(database)] == [2.6, 2.7]
    with database.read() as session:
        assert quality.last_acquired(session) == DAY + dt.timedelta(days=1)


def test_a_job_says_it_once(database: Database) -> None:
    with database.write() as session:
        job = add_score(session, "1.2", DAY, 2.5)
    again = QualityRow(job_id=job, series_instance_uid="1.2", scanner=FORCE, protocol=CHEST, acquired_on=DAY)
    again.model, again.slices, again.poor, again.levels, again.detail = MODEL, 1, 0, [], []
    with database.read() as session:
        quality.add(session, again)
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
