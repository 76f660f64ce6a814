from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gate import made
from node.cli.picture import draw, draw_radiograph
from node.dicom.synthetic import Labels, write_ct_series

SPACING = (3.0, 1.0, 1.0)


@pytest.fixture
def series(tmp_path: Path) -> tuple[list[Path], list[Path], np.ndarray]:
    """(noisy, smooth, truth): a body of 40 HU whose noise goes from 20 to 5 HU."""
    truth = np.full((3, 64, 64), -1000, np.float32)
    truth[:, 8:-8, 8:-8] = 40
    noise = np.random.default_rng(1).normal(0, 1, truth.shape).astype(np.float32)
    before = write_ct_series(tmp_path / "before", truth + 20 * noise, SPACING)
    after = write_ct_series(tmp_path / "after", truth + 5 * noise, SPACING, labels=Labels(series="2"))
    return before, after, truth


def numbers_in(words: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", words)]


def test_the_picture_has_three_panels_and_the_numbers_are_those_of_the_slice(
    series: tuple[list[Path], list[Path], np.ndarray], tmp_path: Path
) -> None:
    before, after, truth = series
    words = draw(before, after, tmp_path / "p.png", truth=truth)
    assert words.startswith("Away from the noise-free phantom, in the body: ")
    assert numbers_in(words) == pytest.approx([20, 5], rel=0.05)
    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 2.5 * image.height


def test_without_a_truth_the_change_is_told(series: tuple[list[Path], list[Path], np.ndarray], tmp_path: Path) -> None:
    before, after, _ = series
    assert numbers_in(draw(before, after, tmp_path / "p.png")) == pytest.approx([0, 15], abs=0.75)


def test_a_radiograph_is_shown_before_and_after_in_its_grey_levels(tmp_path: Path) -> None:
    run = made.process(made.chest(tmp_path / "in", bits=8))
    (restored,) = (result for result in run.images if result.kind == "derived")
    (after,) = made.keep(tmp_path / "out", [restored])
    words = draw_radiograph(run.paths[0], after, tmp_path / "p.png")
    (found,) = run.findings.images
    change = np.abs(np.rint(found.array) - run.grid.pixels)
    assert words == f"Change: {change.mean():.1f} grey levels on average, {change.max():.0f} at most."
    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 2.5 * image.height
