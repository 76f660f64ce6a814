from __future__ import annotations

import datetime as dt
import os
import pwd
from pathlib import Path

import pytest
import typer

from node import errors
from node.cli import words


def leaves(kind: type[errors.NodeError]) -> set[type[errors.NodeError]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*(leaves(one) for one in below))


@pytest.mark.parametrize("kind", sorted(leaves(errors.NodeError), key=lambda kind: kind.__name__))
def test_every_error_has_an_exit_code_that_the_help_explains(kind: type[errors.NodeError]) -> None:
    assert any(ancestor in words.CODE_OF for ancestor in kind.__mro__)
    code = words.exit_code_of(kind("reason"))
    assert code in words.EXIT_CODES
    assert code != words.DONE


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
        (-5, "0.0 s"),
        (None, ""),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("octets", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_sizes_have_binary_units(octets: int, text: str) -> None:
    assert words.size(octets) == text


def test_a_moment_is_how_long_ago_or_an_iso_time() -> None:
    two_hours_ago = dt.datetime.fromisoformat(words.moment("2h", option="--since"))
    assert dt.timedelta(hours=1.99) < dt.datetime.now(dt.UTC) - two_hours_ago < dt.timedelta(hours=2.01)
    assert words.moment("2026-01-15T08:10+01:00", option="--since") == "2026-01-15T07:10:00.000000+00:00"
    assert words.moment("", option="--since") == ""


def test_a_moment_that_is_none_says_what_would_be() -> None:
    with pytest.raises(typer.BadParameter, match="30min, 2h, 7d"):
        words.moment("yesterday-ish", option="--since")


@pytest.mark.parametrize("text", ["99999999999d", "9999999w", "1" * 400 + "d", "0001-01-01T00:00+14:00"])
def test_a_moment_before_all_time_is_said(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="too long ago"):
        words.moment(text, option="--since")


def test_text_from_headers_is_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    words.table("", ["description"], [["Chest [bold]x[/nope] [/]"]])
    assert "Chest [bold]x[/nope] [/]" in capsys.readouterr().out


def test_who_types_is_not_who_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "mallory")
    assert pwd.getpwuid(os.getuid()).pw_name in words.person()
    assert "mallory" not in words.person()


@pytest.mark.parametrize(
    ("login", "told"), [("4294967295", ""), ("4242424", "uid 4242424 as "), ("", ""), (str(os.getuid()), "")]
)
def test_who_became_another_user_is_told_as_who_logged_in(
    login: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loginuid").write_text(login, encoding="ascii")
    monkeypatch.setattr(words, "_LOGIN", tmp_path / "loginuid")
    assert words.person().startswith(f"{told}{pwd.getpwuid(os.getuid()).pw_name}@")
