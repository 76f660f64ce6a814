from __future__ import annotations

from pathlib import Path

import pytest

from node.cli import home as homes
from node.errors import ConfigurationError
from node.settings import Settings


def test_what_a_home_was_started_with_is_remembered_below_environment_and_options(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Settings.load(home=home, aet="CHEST", port=4242, web_port=4343)
    homes.remember(started)
    assert homes.load(home) == started
    monkeypatch.setenv("PACSNODE_PORT", "5000")
    assert (homes.load(home).port, homes.load(home).aet) == (5000, "CHEST")
    assert homes.load(home, port=6000).port == 6000


def test_a_secret_is_never_remembered(home: Path) -> None:
    homes.remember(Settings.load(home=home, database_url="postgresql+psycopg://u:secret@db/x"))
    assert "secret" not in homes.settings_file(home).read_text(encoding="utf8")


def test_a_damaged_memory_is_said_and_not_guessed_at(home: Path) -> None:
    homes.remember(Settings.load(home=home))
    for damaged in ("{", "3"):
        homes.settings_file(home).write_text(damaged, encoding="utf8")
        with pytest.raises(ConfigurationError, match="delete it"):
            homes.load(home)


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="not a folder"):
        homes.load(tmp_path / "file")


def test_only_the_owner_may_look_into_a_home(home: Path) -> None:
    homes.prepare(Settings.load(home=home))
    assert {path.stat().st_mode & 0o077 for path in (home, home / "run", home / "log", home / "archive")} == {0}


def test_a_home_whose_socket_would_not_fit_is_refused_with_its_remedy(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with pytest.raises(ConfigurationError, match="shorter path"):
        homes.prepare(Settings.load(home=deep))
    homes.prepare(Settings.load(home=deep, redis_url="redis://elsewhere"))


def test_a_home_has_one_owner_at_a_time(home: Path) -> None:
    settings = Settings.load(home=home)
    homes.prepare(settings)
    assert homes.owner(home) is None
    with homes.sole_owner(settings):
        assert homes.owner(home) is not None
        with pytest.raises(ConfigurationError, match="runs there already"), homes.sole_owner(settings):
            pass
    assert homes.owner(home) is None


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be the home"):
        homes.prepare(Settings.load(home=tmp_path / "file" / "home"))
