"""Which analyses are not in service, as rows."""

import datetime as dt

from node.db import switches
from node.db.session import Database
from node.settings import Switch
from seeded.rows import T0

OFF = Switch(name="low_dose_ct", state="off", reason="new kernel")
LATER = T0 + dt.timedelta(days=1)


def test_only_what_is_not_on_has_a_row_and_its_state_lasts_as_long_as_it_is_the_same(database: Database) -> None:
    with database.write() as session:
        switches.replace(session, [OFF, Switch(name="chest_xray")], at=T0)
    with database.write() as session:
        switches.replace(session, [OFF.model_copy(update={"reason": "still"})], at=LATER)
    with database.read() as session:
        (row,) = switches.not_on(session).values()
        assert (row.analysis, row.reason, row.since) == ("low_dose_ct", "still", T0)
        assert switches.is_off(session, "low_dose_ct") is not None
        assert switches.is_on(session, "chest_xray")
    with database.write() as session:
        switches.replace(session, [OFF.model_copy(update={"state": "shadow"})], at=LATER)
    with database.read() as session:
        (row,) = switches.not_on(session).values()
        assert (row.state, row.since) == ("shadow", LATER)
        assert switches.is_off(session, "low_dose_ct") is None, "on trial it runs"
        assert not switches.is_on(session, "low_dose_ct")


def test_a_reader_is_told_why_it_is_off_and_not_why_there_is_a_trial(database: Database) -> None:
    with database.write() as session:
        switches.replace(session, [OFF], at=T0)
        assert "switched off by this site: new kernel. No" in switches.in_words(switches.not_on(session)["low_dose_ct"])
        switches.replace(session, [OFF.model_copy(update={"state": "shadow"})], at=T0)
        assert "kernel" not in switches.in_words(switches.not_on(session)["low_dose_ct"])
