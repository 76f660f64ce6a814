"""What gets no score, and in which words."""

from dataclasses import replace

import numpy as np
import pytest

from models.clinreadnet.config import RunConfig
from models.clinreadnet.domain import why_not
from models.contract import Acquisition, SourceRef, Volume

RULES = RunConfig()


def trunk(width_mm: float = 340, *, side: int = 256, pixel_mm: float = 1.0, **header: object) -> Volume:
    """Ellipses of water in air, axial."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(y * pixel_mm / (0.35 * width_mm), x * pixel_mm / (0.5 * width_mm)) < 1
    voxels = np.broadcast_to(np.where(inside, np.float32(40), np.float32(-1000)), (3, side, side)).copy()
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = pixel_mm, pixel_mm, 3.0, 1.0
    told = {"modality": "CT", "kernel": "B30f", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"), **header}
    return Volume(
        voxels, affine, (3.0, pixel_mm, pixel_mm), np.zeros((3, 3)), tuple(SourceRef(f"1.{k}") for k in range(3)),
        Acquisition(**told),
    )  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"body_part": "ABDOMEN"},
        {"body_part": "CHEST", "kernel": "STANDARD"},
        {"kernel": "FC13", "image_type": ()},
        {"body_part": "THORAX_ABDOMEN", "kernel": ""},
        {"body_part": "PELVIS", "kernel": "Br40d\\3"},
    ],
)
def test_an_axial_trunk_is_scored(header):
    assert why_not(trunk(**header), RULES) == ""


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"modality": "PT"}, "made for CT, these images are PT"),
        ({"body_part": "HEAD"}, "the body part of these images is head"),
        ({"body_part": "CERVICAL_SPINE"}, "cervical spine"),
        ({"body_part": "RIGHT KNEE"}, "right knee"),
        ({"image_type": ("DERIVED", "PRIMARY")}, "derived primary"),
        ({"image_type": ("ORIGINAL", "SECONDARY")}, "original secondary"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "MPR")}, "marked MPR"),
        ({"kernel": "B70f"}, "B70f is a sharper one"),
        ({"kernel": "LUNG"}, "LUNG is a sharper one"),
        ({"kernel": "BONE"}, "BONE is a sharper one"),
        ({"kernel": "Bl57d\\3"}, "is a sharper one"),
        ({"kernel": "YC"}, "YC is a sharper one"),
        ({"kernel": "XRES 3"}, "whether XRES 3 is one is not known"),
        ({"kernel": "TrueFidelity-H"}, "a network reconstructed"),
    ],
)
def test_headers_that_are_refused(header, said):
    assert said in why_not(trunk(**header), RULES)


def test_a_head_without_a_word_is_told_by_its_size():
    assert "smaller" in why_not(trunk(160), RULES)
    assert "0 cm²" in why_not(replace(trunk(), voxels=np.full((3, 256, 256), -1000, np.float32)), RULES)


def test_padding_is_air():
    volume = trunk()
    padding = np.ones(volume.voxels.shape, bool)
    assert "0 cm²" in why_not(replace(volume, padding=padding), RULES)


def test_other_grids_are_refused():
    assert "0.30 × 0.30 mm" in why_not(trunk(60, side=256, pixel_mm=0.3), RULES)
    assert "up to 512 × 512 pixels, these have 600 × 600" in why_not(trunk(side=600), RULES)
    assert "square" in why_not(replace(trunk(), spacing_zyx_mm=(3.0, 1.0, 0.9)), RULES)


@pytest.mark.parametrize(("tilt", "scored"), [(0, True), (15, True), (25, False), (90, False)])
def test_slices_that_are_not_axial(tilt, scored):
    volume = trunk()
    angle = np.radians(tilt)
    turned = volume.affine.copy()
    turned[:3, 1] = (0, np.cos(angle), np.sin(angle))
    said = why_not(replace(volume, affine=turned), RULES)
    assert (said == "") is scored
    if not scored:
        assert f"turned by {tilt}°" in said
