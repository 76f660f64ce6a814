import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from models.contract import ModelError
from node.cli.learning import arm_files, in_words, trainings_by_arm
from node.errors import ConfigurationError, Transient

Run = Callable[..., Result]


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


def test_what_a_network_cannot_do_and_a_path_through_a_file_are_errors_of_what_was_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^no pictures$"), in_words():
        raise ModelError("no pictures")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="a part of this path is a file"), in_words():
        (tmp_path / "file" / "below").mkdir(parents=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_without_room_is_passing_trouble(number: int) -> None:
    with pytest.raises(Transient, match=r"no room to write .* goes on there"), in_words():
        raise OSError(number, "no room")


def test_another_error_of_the_system_is_not_explained_away() -> None:
    with pytest.raises(FileNotFoundError), in_words():
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_training_for_a_gpu_says_that_there_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ("train", "diffusionxray", "munit", "--out", tmp_path)
    assert "torch sees no GPU here" in run(*arguments, "--preset", "gpu").stderr
    assert "GPU" not in run(*arguments).stderr
