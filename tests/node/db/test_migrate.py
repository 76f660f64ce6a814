from node.audit.chain import GENESIS
from node.db import migrate, trail
from node.db.session import Database


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


def test_first_link_of_the_audit_chain_is_laid(database: Database) -> None:
    with database.read() as session:
        head = trail.head(session)
    assert head is not None
    assert (head.number, head.digest) == (0, GENESIS)
