from pathlib import Path

import pytest

from node.cli.learning import arm_files, trainings_by_arm
from node.errors import ConfigurationError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in "wv":
        (tmp_path / name).touch()
    return tmp_path / "w", tmp_path / "v"


def test_files_of_one_name_are_trainings_of_one_arm(files: tuple[Path, Path]) -> None:
    one, other = files
    assert arm_files([f"multi={one}", f"single={one}", f"multi={other}"], taken=("shipped",)) == {
        "multi": {"multi 1": one, "multi 2": other},
        "single": {"single": one},
    }


def test_a_file_counts_once_however_it_is_written(files: tuple[Path, Path]) -> None:
    one, _ = files
    (one.parent / "folder").mkdir()
    for again in (one, one.parent / "folder" / ".." / one.name):
        with pytest.raises(ConfigurationError, match="already one of the arm's trainings"):
            arm_files([f"multi={one}", f"multi={again}"], taken=())


def test_an_arm_needs_a_name_and_a_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    for said in ("multi", f"={files[0]}", f"multi={tmp_path / 'missing'}"):
        with pytest.raises(ConfigurationError, match="NAME=FILE"):
            arm_files([said], taken=())


def test_no_two_arms_look_alike(files: tuple[Path, Path]) -> None:
    one, other = files
    for said in (
        [f"shipped={one}"],
        [f"shipped={one}", f"shipped={other}"],
        [f"multi={one}", f"multi={other}", f"multi 2={one}"],
    ):
        with pytest.raises(ConfigurationError, match="another arm of that name"):
            arm_files(said, taken=("shipped",))


def test_trainings_may_join_the_arm_that_is_there_first(files: tuple[Path, Path]) -> None:
    one, other = files
    assert trainings_by_arm([f"new={one}", f"first={other}"], {"first": one}) == {"first": [one, other], "new": [one]}
    with pytest.raises(ConfigurationError, match="already one of the arm's trainings"):
        trainings_by_arm([f"first={one}"], {"first": one})
