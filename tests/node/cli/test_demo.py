from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gate import made
from node.cli.demo import _clear, _pictures, list_of
from node.dicom.send import send
from node.dicom.standin import LOOPBACK, StandInPacs
from node.dicom.synthetic import write_ct_series
from node.errors import ConfigurationError
from node.settings import Peer, Settings


def test_only_what_an_earlier_demo_made_is_removed(tmp_path: Path) -> None:
    _clear(tmp_path / "new")
    (tmp_path / "new" / "home").mkdir()
    (tmp_path / "new" / "home" / "node.sqlite").touch()
    (tmp_path / "new" / "notes.txt").write_text("mine", encoding="utf8")
    _clear(tmp_path / "new")
    assert not (tmp_path / "new" / "home").exists()
    assert (tmp_path / "new" / "notes.txt").read_text(encoding="utf8") == "mine"


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigurationError, match="holds something else"):
        _clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_no_image_is_not_sent(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, np.zeros((2, 16, 16), np.float32), (3.0, 1.0, 1.0))
    (tmp_path / "readme.txt").write_text("x", encoding="utf8")
    assert [found.path for found in list_of(tmp_path)] == paths


class _Node:
    """Knows which series were made of which."""

    def __init__(self, **derived: dict[str, str]) -> None:
        self._derived = derived

    def derived_series(self, modality: str) -> dict[str, str]:
        return self._derived.get(modality, {})


def test_of_a_radiograph_there_is_a_picture_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.process(made.chest(tmp_path / "in"))
    (restored,) = (result for result in run.images if result.kind == "derived")
    (path,) = made.keep(tmp_path / "out", [restored])
    pacs = StandInPacs(tmp_path / "pacs")
    pacs.start()
    try:
        peer = Peer(aet=pacs.aet, host=LOOPBACK, port=pacs.port)
        objects = [found.outgoing for found in list_of(path) if found.outgoing is not None]
        assert all(sent.error is None for sent in send(Settings.load(home=tmp_path / "home"), peer, objects))
        kept = pacs.kept()
    finally:
        pacs.stop()
    node = _Node(DX={restored.series_instance_uid: run.source.series_instance_uid})
    _pictures(node, list_of(tmp_path / "in"), kept, tmp_path, truth=None)  # type: ignore[arg-type]
    assert (tmp_path / "before-after-difference-radiograph.png").exists()
    _pictures(_Node(), list_of(tmp_path / "in"), kept, tmp_path, truth=None)  # type: ignore[arg-type]
    assert not (tmp_path / "before-after-difference-radiograph.png").exists(), "that of an earlier demonstration goes"
    assert "no picture: no derived images came back" in capsys.readouterr().err


def test_a_study_goes_all_the_way_round(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).normal(0, 30, (4, 64, 64)).astype(np.float32)
    voxels[:, :8] = -1000
    write_ct_series(tmp_path / "study", voxels, (3.0, 1.0, 1.0))
    out = tmp_path / "out"
    production = {"PACSNODE_DATABASE_URL": "postgresql+psycopg://real-node/db", "PACSNODE_PORT": "104"}
    done = subprocess.run(
        [sys.executable, "-m", "node", "demo", "--study", str(tmp_path / "study"), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **production, "OMP_NUM_THREADS": "1", "PACSNODE_CLOCK_INTERVAL_S": "0.2"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 objects taken by the node" in done.stdout
    assert "storage commitment" in done.stdout
    assert "The report of Chest says:" in done.stdout
    kept = [pydicom.dcmread(path, stop_before_pixels=True) for path in (out / "pacs").rglob("*.dcm")]
    assert "SR" in {header.Modality for header in kept}
    assert all(header.PatientID == "PHANTOM-1" for header in kept)
    assert (out / "before-after-difference.png").exists() == ("picture     " in done.stdout)
    assert not list((out / "home" / "run").glob("*.pid"))
