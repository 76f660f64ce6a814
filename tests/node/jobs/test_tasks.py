"""The three tasks: calls that may be lost."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from node.jobs.broker import TASK_DELIVER, TASK_PLAN, TASK_RUN
from node.jobs.tasks import make_app, register


def broken(error: type[OperationalError] | type[ProgrammingError]) -> Any:
    def do(*_given: object) -> None:
        raise error("SELECT 'P-1'", {}, Exception("connection refused\nfor P-1"))

    app = make_app("memory://")
    register(app, plan=do, run_job=do, deliver=do)
    return app


CALLS = [(TASK_PLAN, (1,)), (TASK_RUN, (1,)), (TASK_DELIVER, (1, "PACS"))]


@pytest.mark.parametrize(("name", "given"), CALLS)
def test_a_call_while_the_database_is_away_is_a_line(
    name: str, given: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    app = broken(OperationalError)
    app.tasks[name](*given)
    [said] = caplog.records
    assert said.getMessage() == "the database is away (connection refused): the clock calls again"
    assert said.exc_info is None


@pytest.mark.parametrize(("name", "given"), CALLS)
def test_a_fault_of_ours_is_none_of_the_database(name: str, given: tuple[Any, ...]) -> None:
    app = broken(ProgrammingError)
    with pytest.raises(ProgrammingError):
        app.tasks[name](*given)
