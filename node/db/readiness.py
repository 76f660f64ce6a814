"""Does the database answer, and is it the one that this version needs?"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from node.db import migrate
from node.db.session import Database


def lack(database: Database) -> str | None:
    """None where all is well, else what is missing, in words without statement or address."""
    try:
        current, head = migrate.current(database), migrate.head()
    except SQLAlchemyError as exc:
        return f"does not answer ({type(exc).__name__})"
    if current != head:
        return f"stands at {current or 'nothing'}, this version needs {head}: {migrate.remedy(current)}"
    return None
