from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from node.db.session import Database
from node.errors import ConfigurationError


def test_an_error_shows_no_parameter_of_its_statement(database: Database) -> None:
    """A traceback goes into the log, and the parameters may name a patient."""
    statement = text("INSERT INTO no_such_table VALUES (:patient)")
    with pytest.raises(DatabaseError) as caught, database.write() as session:
        session.execute(statement, {"patient": "SECRET-ID"})
    assert "no_such_table" in str(caught.value)
    assert "SECRET-ID" not in str(caught.value)
    with pytest.raises(DatabaseError) as caught, database.read() as session:
        session.execute(statement, [{"patient": "SECRET-ID"}] * 2)
    assert "SECRET-ID" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "geheim",
        "postgresql+psycopg//u:geheim@h/x",
        "postgresql+psycopg://u:geheim@h:port/x",
        "oracel://u:geheim@h/x",
        "mysql://u:geheim@h/x",
        "postgresql+nodriver://u:geheim@h/x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="give postgresql") as caught:
        Database(url)
    assert "geheim" not in caught.value.reason
