"""A volume through the detector: what comes out lies where it should, in the right words, and is the same again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.contract import Acquisition, ModelError, ModelIdentity, SourceRef, Volume
from models.deeplesion.config import NetworkConfig, RunConfig
from models.deeplesion.grouping import Region
from models.deeplesion.network import Detections, Detector, build
from models.deeplesion.resample import mixes, resize, slab
from models.deeplesion.run import (
    LEFT,
    RIGHT,
    _median_place,
    _slabs,
    find,
    key_slices,
    laterality,
    positions_along_normal,
    prepare,
    run,
)

IDENTITY = ModelIdentity("deeplesion-test", "1", "0" * 64)
SPACING = (2.5, 0.5, 0.5)


class Bright(Detector):
    """Stands in for a trained detector: a box around what is bright in the key slice, its mask exact, always a lung."""

    def __init__(self, score: float = 0.9) -> None:
        super().__init__(NetworkConfig(widths=(8, 8), fpn_channels=8, rpn_width=8, head_widths=(8, 8), mask_width=8))
        self.score = score
        self.seen: list[torch.Tensor] = []

    def detect(self, hu: torch.Tensor, *, masks: bool = True, least_score: float | None = None) -> list[Detections]:
        self.seen.append(hu.clone())
        return [self._one(image[1] > 200) for image in hu]

    def _one(self, bright: torch.Tensor) -> Detections:
        if not bright.any():
            nothing = torch.zeros(0, 4)
            return Detections(nothing, torch.zeros(0), torch.zeros(0).long(), torch.zeros(0, 5), torch.zeros(0, 28, 28))
        y, x = torch.nonzero(bright, as_tuple=True)
        x1, y1, x2, y2 = int(x.min()) - 5, int(y.min()) - 5, int(x.max()) + 6, int(y.max()) + 6
        inside = bright[y1:y2, x1:x2].float()[None, None]
        mask = torch.nn.functional.interpolate(inside, size=(28, 28), mode="bilinear")[0]
        box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
        categories = torch.tensor([[self.score, 0, 0, 0, 0]])
        return Detections(box, torch.tensor([self.score]), torch.tensor([0]), categories, mask)


def scan(centre_mm=(37.5, 55.0, 30.0), radius_mm=10.0, voxels: np.ndarray | None = None) -> Volume:
    """A body of 55 × 50 mm half axes full of lung, a ball in it in 3 mm of tissue: 31 slices of 220 × 240 pixels."""
    z, y, x = (np.arange(count) * step for count, step in zip((31, 220, 240), SPACING, strict=True))
    if voxels is None:
        body = ((y[:, None] - 55) / 50) ** 2 + ((x - 60) / 55) ** 2 < 1
        lung = ((y[:, None] - 55) / 42) ** 2 + ((x - 60) / 47) ** 2 < 1
        image = np.where(lung, -850.0, np.where(body, 0.0, -1000.0))[None].repeat(31, 0)
        apart = [(axis - at) ** 2 for axis, at in zip((z, y, x), centre_mm, strict=True)]
        from_centre_mm = np.sqrt(apart[0][:, None, None] + apart[1][:, None] + apart[2])
        image[from_centre_mm < radius_mm + 3] = 0
        image[from_centre_mm < radius_mm] = 400
        voxels = image.astype(np.float32)
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])[:, [2, 1, 0, 3]]
    origins = np.zeros((len(voxels), 3))
    origins[:, 2] = np.arange(len(voxels)) * SPACING[0]
    sources = tuple(SourceRef(f"1.2.{k}") for k in range(len(voxels)))
    return Volume(voxels, affine, SPACING, origins, sources, Acquisition(modality="CT"))


def test_a_ball_comes_out_as_one_lesion_of_its_size():
    volume = scan()
    (found,) = run(Bright(), volume)
    lesion = found.lesion(volume, IDENTITY)
    truth = volume.voxels == 400
    assert lesion.mask.shape == truth.shape
    assert lesion.mask.dtype == np.bool_
    assert 2 * (lesion.mask & truth).sum() / (lesion.mask.sum() + truth.sum()) > 0.9
    assert lesion.volume_mm3 == pytest.approx(lesion.mask.sum() * np.prod(SPACING))
    assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 1000, rel=0.1)
    assert lesion.long_axis_mm == pytest.approx(20, abs=1)
    assert lesion.short_axis_mm == pytest.approx(20, abs=1.2)
    assert lesion.slice_index == 15
    middle = np.mean(lesion.long_axis_px, axis=0)
    assert middle == pytest.approx((60, 110), abs=1)  # 30 mm and 55 mm at half a millimetre
    assert (lesion.site, lesion.category) == (("39607008", "SCT", "Lung"), ("27925004", "SCT", "Nodule"))
    assert lesion.laterality == RIGHT
    assert lesion.model == IDENTITY
    assert lesion.score == pytest.approx(0.9, abs=1e-6)
    assert lesion.operating_point == 0.5


def test_the_other_side_is_left_and_the_middle_has_none():
    assert run(Bright(), scan((37.5, 55.0, 90.0)))[0].laterality == LEFT
    assert run(Bright(), scan((37.5, 55.0, 60.0)))[0].laterality is None


def test_sides_follow_the_patient_not_the_columns():
    volume = scan()
    mirrored = np.diag([-1.0, 1, 1, 1]) @ volume.affine
    region = Region((slice(15, 16), slice(110, 111), slice(60, 61)), np.ones((1, 1, 1), bool), np.ones((1, 1, 1)), 0.5)
    assert laterality(region, 15, volume, volume.voxels) == RIGHT
    assert laterality(region, 15, replace(volume, affine=mirrored), volume.voxels) == LEFT


def test_no_organ_is_told_where_the_images_show_that_it_cannot_be():
    """Without air in it this is no lung, whatever the network says, and has no sides."""
    volume = scan()
    solid = replace(volume, voxels=np.where(volume.voxels == -850, np.float32(0), volume.voxels))
    lesion = run(Bright(), solid)[0].lesion(solid, IDENTITY)
    assert (lesion.site, lesion.category) == (("38266002", "SCT", "Entire body"), ("52988006", "SCT", "Lesion"))
    assert lesion.laterality is None


def test_only_what_reaches_the_operating_point_is_reported():
    network = Bright(score=0.4)
    assert run(network, scan()) == ()
    assert len(find(network, scan())) == 1
    network.operating_point.fill_(0.3)
    assert len(run(network, scan())) == 1


def test_scores_go_through_the_calibration():
    network = Bright(score=0.5)
    network.calibration.copy_(torch.tensor([2.0, 1.0]))
    (found,) = find(network, scan())
    assert found.score == pytest.approx(1 / (1 + np.exp(-1)))


def test_the_network_sees_neighbours_at_two_millimetres_on_its_own_pixels():
    """In a volume linear in z the three slices differ by 2 mm."""
    z = np.arange(31, dtype=np.float32) * SPACING[0]
    network = Bright()
    find(network, scan(voxels=np.broadcast_to(z[:, None, None], (31, 220, 240)).copy()))
    hu = torch.cat(network.seen)
    assert hu.shape[1:] == (3, 138, 150)  # 110 × 120 mm at 0.8 mm
    inner = hu[1:30, :, 50, 50]
    assert inner[:, 1].tolist() == pytest.approx(z[1:30].tolist(), abs=1e-4)
    assert (inner[:, 1] - inner[:, 0]).tolist() == pytest.approx([2.0] * 29, abs=1e-4)
    assert (inner[:, 2] - inner[:, 1]).tolist() == pytest.approx([2.0] * 29, abs=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("shape", [(41, 37), (60, 50)])
def test_slices_made_together_are_those_made_one_by_one(legacy, shape):
    rng = np.random.default_rng(0)
    image, offsets = rng.normal(0, 300, (9, 60, 50)).astype(np.float32), (-4.0, -2.0, 0.0, 2.0, 4.0)
    positions, keys = np.cumsum(rng.uniform(1, 3, 9)), [1, 4, 8]
    made = [mixes(key, positions, offsets, legacy=legacy) for key in keys]
    together = _slabs(image, made, shape, torch.device("cpu")).numpy()
    one_by_one = [resize(slab(image, key, positions, offsets, legacy=legacy), shape) for key in keys]
    np.testing.assert_array_equal(together, np.stack(one_by_one))


@pytest.mark.parametrize("counts", [[3], [0, 1, 0, 1], [2, 0, 0, 2, 1], [5, 1, 0, 0]])
def test_the_middle_of_a_body_is_the_median_of_its_pixels(counts):
    assert _median_place(np.array(counts)) == np.median(np.repeat(np.arange(len(counts)), counts))


def test_padding_is_air_to_the_network():
    volume = scan()
    padding = np.zeros(volume.voxels.shape, bool)
    padding[:, :10] = True
    network = Bright()
    find(network, replace(volume, voxels=np.where(padding, 3000, volume.voxels).astype(np.float32), padding=padding))
    assert torch.cat(network.seen).max() < 500


def test_thin_slices_are_passed_over_and_thick_ones_are_not():
    assert key_slices(np.arange(9) * 1.0, 2.0) == [0, 2, 4, 6, 8]
    assert key_slices(np.arange(5) * 0.5, 2.0) == [0, 3]
    assert key_slices(np.arange(4) * 5.0, 2.0) == [0, 1, 2, 3]


def test_positions_are_those_of_the_slices_along_the_normal():
    volume = scan()
    origins = volume.slice_origins_mm.copy()
    origins[:, 2] = np.cumsum(np.linspace(1, 3, 31))
    origins[:, 0] += 7  # beside the normal
    uneven = replace(volume, slice_origins_mm=origins)
    assert positions_along_normal(uneven) == pytest.approx(origins[:, 2] - origins[0, 2])
    downwards = replace(volume, slice_origins_mm=origins * [1, 1, -1])
    assert positions_along_normal(downwards) == pytest.approx(origins[:, 2] - origins[0, 2])


def test_the_same_volume_gives_the_same_bits(tiny):
    torch.manual_seed(3)
    network = prepare(build(tiny), torch.device("cpu"))
    volume = scan(voxels=scan().voxels[:7])
    rules = RunConfig(step_mm=5.0)
    one, other = (find(network, volume, config=rules) for _ in range(2))
    assert len(one)
    assert [a.score for a in one] == [b.score for b in other]
    assert all(np.array_equal(a.region.mask, b.region.mask) for a, b in zip(one, other, strict=True))
    assert [a.lesion(volume, IDENTITY).tracking_id for a in one] == [
        b.lesion(volume, IDENTITY).tracking_id for b in other
    ]


def test_half_precision_finds_nearly_the_same(tiny):
    torch.manual_seed(3)
    image = torch.randn(1, 3, 64, 64) * 300
    full = prepare(build(tiny), torch.device("cpu"), half=False)
    before = full.detect(image)[0].scores[:5]
    half = prepare(full, torch.device("cpu"), half=True)
    torch.testing.assert_close(half.detect(image)[0].scores[:5], before, atol=0.02, rtol=0)


def test_progress_is_told():
    told: list[tuple[int, int]] = []
    find(Bright(), scan(), lambda done, total: told.append((done, total)))
    assert told[-1] == (31, 31)
    assert told == sorted(told)


def test_what_cannot_be_analysed_is_refused():
    volume = scan()
    broken = volume.voxels.copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        find(Bright(), replace(volume, voxels=broken))
    with pytest.raises(ModelError, match="at least 32"):
        find(Bright(), replace(volume, voxels=volume.voxels[:, :20]))
