"""`hold`, `release`: a study of which nothing is deleted, whatever the retention says and whoever asks."""

from __future__ import annotations

import typer

from node.cli.studies import open_database
from node.cli.words import person, remark, say


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Studies")(hold)
    app.command(rich_help_panel="Studies")(release)


def hold(
    ctx: typer.Context,
    uid: str = typer.Argument(..., help="Study Instance UID."),
    why: str = typer.Option(..., "--why", help="The reason, for whoever asks: it is shown and stays in the trail."),
) -> None:
    """Put a study under legal hold: no file of it is deleted until it is released, by the policy or by hand.

    \b
    pacsnode --home DIR hold 1.2.3.4 --why "case 17/2026, legal department"
    pacsnode --home DIR studies --held
    """
    from node.jobs import hold as holds

    known = holds.hold(open_database(ctx), uid, why=_reason(why), actor=person())
    say(f"{uid} is held: nothing of it is deleted until `pacsnode release {uid}`")
    if known:
        remark(known)


def release(
    ctx: typer.Context,
    uid: str = typer.Argument(..., help="Study Instance UID."),
    why: str = typer.Option(..., "--why", help="The reason: it stays in the trail."),
) -> None:
    """End the legal hold of a study: the retention applies to it again.

    \b
    pacsnode --home DIR release 1.2.3.4 --why "case 17/2026 is closed"
    """
    from node.jobs import hold as holds

    held = holds.release(open_database(ctx), uid, why=_reason(why), actor=person())
    say(f"{uid} is released; it was held {held}")


def _reason(why: str) -> str:
    if not why.strip():
        raise typer.BadParameter("--why: say why, in a few words")
    return why.strip()
