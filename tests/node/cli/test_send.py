from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.cli.home import free_port
from node.dicom.standin import StandInPacs
from node.dicom.synthetic import write_ct_series


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    pacs = StandInPacs(tmp_path / "pacs", aet="PACS")
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_ct_series(folder / "series", np.zeros((3, 32, 32), np.float32), (3.0, 1.0, 1.0))
    (folder / "notes.txt").write_text("not an image", encoding="utf8")
    return folder


def test_sends_a_folder_and_passes_over_what_is_no_image(run, study: Path, pacs: StandInPacs) -> None:
    result = run("send", study, "--to", f"PACS@127.0.0.1:{pacs.port}")
    assert result.exit_code == 0
    assert "3 of 3 objects taken by PACS" in result.stdout
    assert "notes.txt: passed over: " in result.stderr
    assert len(pacs.kept()) == 3


def test_says_the_fate_of_each_file_for_scripts(run, study: Path, pacs: StandInPacs) -> None:
    found = json.loads(run("send", study, "--to", f"PACS@127.0.0.1:{pacs.port}", "--json").stdout)
    assert [(Path(line["path"]).name, line["status"], line["taken"]) for line in found["objects"]] == [
        (f"ct-1-{n:04d}.dcm", 0, True) for n in (1, 2, 3)
    ]
    assert len(found["passed_over"]) == 1


def test_a_peer_that_is_not_there_is_exit_code_3(run, study: Path) -> None:
    result = run("send", study, "--to", f"127.0.0.1:{free_port('127.0.0.1')}")
    assert result.exit_code == 3
    assert "no connection" in result.stderr


def test_a_name_that_is_not_known_is_exit_code_2(run, study: Path, empty: object) -> None:
    result = run("send", study, "--to", "NOBODY")
    assert result.exit_code == 2
    assert "peer NOBODY is not known" in result.stderr


def test_a_folder_without_images_is_exit_code_1(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("send", tmp_path / "empty", "--to", "127.0.0.1:104").exit_code == 1
