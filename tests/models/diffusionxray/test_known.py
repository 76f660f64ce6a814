"""Cases of known truth come back as they were written, and are not those of the training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from models.contract import ModelError
from models.diffusionxray.data import load_pictures
from models.diffusionxray.known import FIRST_AUDIT_SEED, cases_in, prepare_drawn, read_case
from models.simulation.radiograph import Exposure
from models.simulation.radiograph_cases import DrrCase, RadiographCase, nodule_case

VIEW = Exposure(detector_px=(96, 96), pixel_mm=2.5)


def small(seed: int) -> RadiographCase:
    return nodule_case(seed, nodules=1, view=VIEW, diameter_mm=(8.0, 30.0), voxel_zyx_mm=(4.0, 6.0, 4.0))


def drr(seed: int) -> DrrCase:
    low = np.random.default_rng(seed).uniform(-1, 1, (64, 64)).astype(np.float32)
    return DrrCase(low, -low, 0.3)


def test_a_case_is_drawn_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    drawn: list[int] = []

    def draw(seed: int) -> RadiographCase:
        drawn.append(seed)
        return small(seed)

    first, again = cases_in(tmp_path, 1, draw=draw), cases_in(tmp_path, 1, draw=draw)
    assert drawn == [FIRST_AUDIT_SEED]
    np.testing.assert_array_equal(first[0].present, again[0].present)
    assert first[0].nodules == again[0].nodules
    planted = small(FIRST_AUDIT_SEED).nodules[0]
    assert (first[0].nodules[0].row, first[0].nodules[0].column) == (planted.row, planted.column)
    lit = np.abs(first[0].present - first[0].absent)
    row, column = np.unravel_index(int(lit.argmax()), lit.shape)
    assert np.hypot(row - planted.row, column - planted.column) < planted.diameter_px


def test_another_file_is_no_case(tmp_path: Path) -> None:
    np.savez(tmp_path / "case.npz", present=np.zeros(3))
    with pytest.raises(ModelError, match="not a case of known truth"):
        read_case(tmp_path / "case.npz")


def test_a_drawn_chest_gives_a_picture_of_each_domain_once(tmp_path: Path) -> None:
    drawn: list[int] = []

    def draw(seed: int) -> DrrCase:
        drawn.append(seed)
        return drr(seed)

    assert prepare_drawn(tmp_path, range(3), draw=draw) == 6
    assert prepare_drawn(tmp_path, range(4), draw=draw) == 8
    assert drawn == [0, 1, 2, 3]
    hq, lq = load_pictures(tmp_path, domain="hq"), load_pictures(tmp_path, domain="lq")
    assert {(one.key, one.split) for one in hq} == {(one.key, one.split) for one in lq}
    np.testing.assert_allclose(hq[0].unit, -lq[0].unit, atol=1e-4)


def test_chests_of_the_audit_are_not_for_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="for the audit"):
        prepare_drawn(tmp_path, [FIRST_AUDIT_SEED], draw=cast(Any, SimpleNamespace()))
