import pytest
from sqlalchemy import MetaData, delete, select, text

from node.audit.chain import GENESIS
from node.db import migrate, purging, readiness, trail
from node.db.session import Database
from node.db.tables import DeliveryRow, InstanceRow, JobRow, PurgeRow, ResultRow, RevisionRow, StudyRow, SwitchRow
from node.errors import ConfigurationError
from node.jobs.record import now
from node.jobs.trail import verify
from seeded.rows import DELIVERED, T0, seed


def test_migrated_database_and_rows_agree(database: Database) -> None:
    assert migrate.is_current(database)
    assert migrate.drift(database) == []


def test_downgrade_and_upgrade_again(database: Database) -> None:
    migrate.downgrade(database, "base")
    assert migrate.current(database) is None
    migrate.upgrade(database)
    assert migrate.drift(database) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    migrate.upgrade(database)
    assert migrate.is_current(database)


def test_a_database_of_a_newer_release_is_left_alone_and_says_what_it_needs(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=f"'9999'. This version knows revisions up to {migrate.head()}"):
        migrate.upgrade(database)
    assert migrate.current(database) == "9999"
    assert "newer" in (readiness.lack(database) or "")
    assert "`pacsnode migrate`" not in (readiness.lack(database) or "")


def test_first_link_of_the_audit_chain_is_laid(database: Database) -> None:
    with database.read() as session:
        head = trail.head(session)
    assert head is not None
    assert (head.number, head.digest) == (0, GENESIS)


def contents(database: Database) -> dict[str, list[dict[str, object]]]:
    """All rows of all tables as they lie in the database."""
    tables = MetaData()
    with database.engine.connect() as connection:
        tables.reflect(connection)
        return {
            table.name: sorted((dict(row._mapping) for row in connection.execute(table.select())), key=str)
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


def test_retention_comes_to_a_database_in_use_and_every_file_counts_as_held(database: Database) -> None:
    migrate.downgrade(database, "0002")
    migrate.upgrade(database)
    seed(database)
    migrate.downgrade(database, "0002")
    assert "purge" not in contents(database)
    before = contents(database)
    migrate.upgrade(database)
    after = contents(database)
    assert migrate.drift(database) == []
    assert after.pop("purge") == []
    for name, rows in before.items():
        kept = [{column: value for column, value in row.items() if column in rows[0]} for row in after[name]]
        assert sorted(kept, key=str) == rows, name
    with database.read() as session:
        for kind in (InstanceRow, ResultRow, StudyRow):
            assert {row.purged_at for row in session.scalars(select(kind))} == {None}
        assert DELIVERED in purging.holding(session)
    assert verify(database).complaints == []
    with database.engine.connect() as connection:  # what refers to these tables still does
        if database.engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []


def test_there_is_no_way_back_to_a_release_that_would_look_for_deleted_files(database: Database) -> None:
    seed(database)
    with database.write() as session:
        [one] = purging.held(session, [DELIVERED])
        purging.give_up(session, one, at=now(), because="test", actor="test")
    with pytest.raises(ConfigurationError, match="files were deleted 1 times"):
        migrate.downgrade(database, "0002")
    assert migrate.is_current(database)
    with database.read() as session:
        assert session.scalars(select(PurgeRow)).one().study_instance_uid == DELIVERED


def test_what_was_called_delivered_and_went_nowhere_is_unsent_after_the_upgrade(database: Database) -> None:
    seed(database)
    with database.write() as session:
        revision = session.scalars(select(RevisionRow).filter_by(study_instance_uid=DELIVERED)).one()
        session.execute(delete(DeliveryRow).where(DeliveryRow.revision_id == revision.id))
    migrate.downgrade(database, "0003")
    others = [row for row in contents(database)["revision"] if row["id"] != revision.id]
    migrate.upgrade(database)
    assert [row for row in contents(database)["revision"] if row["id"] != revision.id] == others
    with database.read() as session:
        row = session.get_one(RevisionRow, revision.id)
        assert (row.state, row.delivered_at) == ("unsent", None)
    migrate.downgrade(database, "0003")
    with database.read() as session:
        row = session.get_one(RevisionRow, revision.id)
        assert (row.state, row.delivered_at) == ("delivered", row.reported_at)


def test_an_upgrade_leaves_what_was_delivered_as_it_is(database: Database) -> None:
    seed(database)
    migrate.downgrade(database, "0003")
    migrate.upgrade(database)
    with database.read() as session:
        assert session.scalars(select(RevisionRow.state).filter_by(study_instance_uid=DELIVERED)).one() == "delivered"


def test_there_is_no_way_back_while_a_study_is_held(database: Database) -> None:
    seed(database)
    with database.write() as session:
        session.get_one(StudyRow, DELIVERED).legal_hold = "case 17"
    with pytest.raises(ConfigurationError, match="studies under a legal hold: 1"):
        migrate.downgrade(database, "0005")
    with database.write() as session:
        session.get_one(StudyRow, DELIVERED).legal_hold = ""
    migrate.downgrade(database, "0005")
    migrate.upgrade(database)
    assert migrate.drift(database) == []


def test_there_is_no_way_back_while_an_analysis_is_not_in_service(database: Database) -> None:
    seed(database)
    with database.write() as session:
        session.add(SwitchRow(analysis="low_dose_ct", state="shadow", reason="trial", since=T0))
        session.scalars(select(JobRow).where(JobRow.outcome == "processed")).first().outcome = "on trial"
    with pytest.raises(ConfigurationError, match="low_dose_ct is not in service"):
        migrate.downgrade(database, "0006")
    with database.write() as session:
        session.execute(delete(SwitchRow))
    migrate.downgrade(database, "0006")
    migrate.upgrade(database)
    with database.read() as session:
        assert session.scalars(select(JobRow.state).where(JobRow.outcome == "on trial")).one() == "failed"
