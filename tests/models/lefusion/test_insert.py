"""Lesions in a chest: the rest of it untouched, the truth true, both kinds of artist."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from models.contract import ModelError
from models.diffusionxray.schedule import cosine
from models.lefusion.composite import COLLAR_VOXELS
from models.lefusion.config import CROP_ZYX, SCHEDULE, TrainConfig
from models.lefusion.data import CropStore, ShapeStore, histograms_of
from models.lefusion.histogram import LUNG, preset
from models.lefusion.insert import ByHand, Drawn, Site, axes_of, insert_lesions
from models.lefusion.masks import control_sphere
from models.lefusion.places import Spot
from models.lefusion.samplers import evaluations
from models.lefusion.synthesis import (
    PAPER_SAMPLING,
    Sampling,
    Synthesiser,
    parts_of,
    read_histograms,
    read_synthesiser,
    write_histograms,
)
from models.lefusion.train import Trained, train
from models.simulation.lesions import MOST_NOISE_HU
from models.simulation.lungs import find_lungs
from seeded.lesion_crops import region

SPACING = (2.0, 2.0, 2.0)
TIMES = cosine(SCHEDULE)


@pytest.fixture(scope="module")
def chest():
    shape, rng = (30, 120, 160), np.random.default_rng(0)
    voxels = np.full(shape, -1000.0)
    voxels[:, 10:-10, 10:-10] = 40
    voxels[:, 25:-25, 20:70] = -850
    voxels[:, 25:-25, 90:140] = -850
    return (voxels + rng.normal(0, 15, shape)).astype(np.float32)


@pytest.fixture(scope="module")
def made(chest):
    return insert_lesions(chest, SPACING, ByHand(), count=4, seed=3)


def test_beyond_the_lesions_not_a_bit_changes(chest, made):
    after, truth = made
    assert len(truth) == 4
    changed = after.view(np.int32) != chest.view(np.int32)
    reach = np.zeros(chest.shape, bool)
    for lesion in truth:
        reach[lesion.box] |= lesion.mask
    assert changed[reach].mean() > 0.99
    apart = distance_transform_edt(~reach, sampling=SPACING)
    assert not changed[apart > COLLAR_VOXELS + np.linalg.norm(SPACING)].any()


def test_the_truth_is_what_was_put_in(chest, made):
    after, truth = made
    lungs = find_lungs(chest, SPACING)
    for lesion in truth:
        change = (after - chest)[lesion.box]
        assert lesion.contrast_hu == pytest.approx(change[lesion.mask].mean(), abs=1)
        assert abs(after[lesion.box][lesion.mask].mean() - lesion.mean_hu) < LUNG.bin_hu
        places = np.argwhere(lesion.mask) + [part.start for part in lesion.box]
        assert places.mean(0) == pytest.approx(np.array(lesion.centre))
        assert lungs.host[tuple(places.T)].mean() > 0.95
        long, middle, short = lesion.axes_mm
        assert long >= middle >= short > 0
        assert (long * middle * short) ** (1 / 3) == pytest.approx(lesion.diameter_mm, rel=0.15)
    assert len({lesion.kind for lesion in truth}) > 1
    glass = [lesion.mean_hu for lesion in truth if lesion.kind == "ground-glass"]
    others = [lesion.mean_hu for lesion in truth if lesion.kind != "ground-glass"]
    assert max(glass, default=-1000) < min(others, default=0)


def test_same_seed_same_lesions(chest, made):
    again = insert_lesions(chest, SPACING, ByHand(), count=4, seed=3)[0]
    other = insert_lesions(chest, SPACING, ByHand(), count=1, seed=4)[0]
    assert np.array_equal(again, made[0])
    assert not np.array_equal(other, made[0])


def test_lesions_do_not_meet(made):
    centres = np.array([lesion.centre for lesion in made[1]]) * SPACING
    radii = np.array([lesion.diameter_mm for lesion in made[1]]) / 2
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1) + 1e3 * np.eye(4)
    assert (apart > radii[:, None] + radii).all()


def test_lesions_are_not_in_the_middle_of_their_crops(chest):
    seen = []

    class Watching:
        name = "watching"

        def draw(self, site, seed):
            seen.append(site.centre)
            mask = control_sphere(CROP_ZYX, site.centre, 4) & site.organ
            return Drawn((np.full(CROP_ZYX, 50, np.float32),), (mask,))

    after, truth = insert_lesions(chest, SPACING, Watching(), count=5, seed=1)
    assert len(set(seen)) > 3
    for lesion in truth:
        z, y, x = np.rint(lesion.centre).astype(int)
        assert after[z, y, x] == pytest.approx(50, abs=MOST_NOISE_HU + 12)


def test_no_lungs_and_an_artist_who_draws_nothing(chest):
    with pytest.raises(ModelError, match="no lungs"):
        insert_lesions(np.zeros((8, 64, 64), np.float32), SPACING, ByHand(), count=1, seed=1)

    class Idle:
        name = "idle"

        def draw(self, _site, _seed):
            return None

    after, truth = insert_lesions(chest, SPACING, Idle(), count=1, seed=1)
    assert truth == ()
    assert np.array_equal(after, chest)


def test_the_axes_are_those_of_an_ellipsoid():
    axes = np.ogrid[-30:31, -30:31, -30:31]
    mask = (axes[0] * 0.8 / 8) ** 2 + (axes[1] / 6) ** 2 + (axes[2] / 12) ** 2 <= 1
    assert axes_of(mask, (0.8, 1.0, 1.0)) == pytest.approx((24, 16, 12), rel=0.02)


def site(texture="part-solid"):
    healthy = np.random.default_rng(1).normal(-850, 20, (8, 32, 32)).astype(np.float32)
    return Site(healthy, np.ones(healthy.shape, bool), (4, 14, 18), 7.0, texture)


class Filled(torch.nn.Module):
    """In place of trained networks: draws its control sphere, or the middle of each class's asked bins."""

    def __init__(self, classes):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))
        self.classes = classes
        self.asked = []

    def forward(self, x, time, condition=None):
        if condition is None:
            state, wanted = x[:, :1], x[:, 1:]
        else:
            self.asked.append(condition[0])
            centres = torch.from_numpy(LUNG.unit(LUNG.centres_hu))
            level = condition.reshape(self.classes, -1) @ centres
            state, wanted = x, level[None, :, None, None, None].expand_as(x)
        alpha, sigma = (float(table[int(time)]) for table in (TIMES.alpha, TIMES.sigma))
        return (state - alpha * wanted) / sigma


def synthesiser(classes=1, source="published"):
    known = np.tile(np.concatenate([preset("ground-glass"), preset("solid")][:classes]), (6, 1))
    return Synthesiser(
        Trained(Filled(classes), {"classes": classes}), Trained(Filled(1), {}), known, Sampling(6), source
    )


@pytest.mark.parametrize("source", ["published", "trained"])
def test_the_networks_are_asked_for_the_texture_in_the_drawn_mask(source):
    artist = synthesiser(source=source)
    drawn = artist.draw(site(), 1)
    asked = artist.texture.network.asked
    assert len(asked) == 6
    wanted = preset("part-solid" if source == "published" else "ground-glass")
    assert asked[0].numpy() == pytest.approx(wanted, abs=0.12)
    assert drawn.whole[4, 14, 18]
    assert drawn.hu[0][drawn.masks[0]].mean() == pytest.approx(
        float(asked[0] @ torch.from_numpy(LUNG.centres_hu)), abs=5
    )


def test_a_joint_network_draws_glass_and_core_each_in_its_mask():
    drawn = synthesiser(2).draw(site(), 1)
    assert not (drawn.masks[0] & drawn.masks[1]).any()
    assert drawn.masks[1][4, 14, 18]
    glass, core = (hu[mask].mean() for hu, mask in zip(drawn.hu, drawn.masks, strict=True))
    assert glass < -250
    assert core > 0
    alone = synthesiser(2)
    alone.draw(site("solid"), 1)
    assert (alone.texture.network.asked[0][: LUNG.bins] == 0).all()


def test_parts_of_a_lesion_are_all_of_it():
    mask = control_sphere((9, 21, 21), (4, 10, 10), 4)
    for texture in ("ground-glass", "part-solid", "solid"):
        glass, core = parts_of(mask, texture)
        assert np.array_equal(glass ^ core, mask)
    assert not parts_of(mask, "solid")[0].any()
    assert not parts_of(mask, "ground-glass")[1].any()


def test_a_run_is_read_as_an_artist(tmp_path, tiny):
    quick = TrainConfig(steps=1, batch=2, crop_zyx=(8, 16, 16), warmup_steps=1)
    regions = [region(), region(seed=1)]
    train(tiny, "texture", CropStore(regions, classes=1, seed=1), tmp_path / "texture", training=quick, seed=1,
          facts={"classes": 1})  # fmt: skip
    mask = replace(tiny, inputs=2, condition=0)
    train(mask, "mask", ShapeStore(seed=1), tmp_path / "mask", training=quick, seed=1)
    with pytest.raises(ModelError, match=r"no histograms\.json"):
        read_synthesiser(tmp_path)
    write_histograms(histograms_of(regions, classes=1), tmp_path / "texture")
    assert read_histograms(tmp_path / "texture").shape == (2, LUNG.bins)
    drawn = read_synthesiser(tmp_path, sampling=Sampling(3)).draw(site(), 1)
    assert drawn is None or drawn.whole.any()


def test_the_papers_sampling_is_598_evaluations():
    assert evaluations(PAPER_SAMPLING.path) == 598
    assert evaluations(Sampling(30, jump=5, visits=2).path) == 55


class Ball:
    """Draws balls of one grey, whatever is asked for."""

    name = "ball"

    def __init__(self, radius):
        self.radius = radius

    def draw(self, site, _seed):
        mask = control_sphere(CROP_ZYX, site.centre, self.radius)
        return Drawn((np.full(CROP_ZYX, 50, np.float32),), (mask,))


def test_a_balls_longest_diameters_are_its_own(chest):
    _, truth = insert_lesions(chest, SPACING, Ball(6), count=2, seed=2)
    assert truth
    for lesion in truth:
        assert lesion.recist.long_mm == pytest.approx(12.5, abs=1.2)
        assert lesion.recist.short_mm == pytest.approx(12.5, abs=1.2)
        assert lesion.recist.index == pytest.approx(lesion.centre[0], abs=1)
        middle = np.mean(lesion.recist.long_px, axis=0)
        assert middle[::-1] == pytest.approx(lesion.centre[1:], abs=0.6)


def test_no_lesion_reaches_the_end_of_the_scan_and_none_another(chest):
    short = chest[10:20]
    _, truth = insert_lesions(short, SPACING, ByHand(), count=6, seed=4)
    assert truth
    counted = np.zeros(short.shape, int)
    for lesion in truth:
        counted[lesion.box] += lesion.mask
    assert counted.max() == 1
    assert not counted[[0, -1]].any()
    _, none = insert_lesions(chest[10:13], SPACING, Ball(6), count=2, seed=4)
    assert none == ()


def test_lesions_that_would_share_voxels_are_not_both_put_in(chest):
    class Crowded:
        host, blur_mm = np.ones(chest.shape, bool), 0.5
        asked = 0

        def spot(self, _others, _rng):
            self.asked += 1
            return Spot((0.0, 0.0, -30.0 + 4 * (self.asked % 2)), 10.0)

        def kind(self, _rng):
            return "solid", None

    _, truth = insert_lesions(chest, SPACING, Ball(5), count=2, seed=1, places=Crowded())
    assert len(truth) == 1


def test_ground_glass_darkens_neither_vessel_nor_wall():
    rng, made = np.random.default_rng(1), site("ground-glass")
    healthy = made.healthy.copy()
    healthy[:, :, 17:19] = 40 + rng.normal(0, 20, healthy[:, :, 17:19].shape)
    drawn = ByHand().draw(replace(made, healthy=healthy, diameter_mm=12.0), 1)
    vessel = drawn.whole & (healthy > -100)
    assert vessel.sum() > 20
    assert np.array_equal(drawn.hu[0][vessel], healthy[vessel])
    glass = drawn.hu[0][drawn.whole & (healthy < -700)]
    assert -600 - MOST_NOISE_HU <= glass.min() <= glass.max() < -300


@pytest.mark.parametrize(("changed", "count"), [(0.2, 0), (0.7, 1)])
def test_a_lesion_that_is_mostly_what_was_there_is_not_put_in(chest, changed, count):
    class Partly:
        name = "partly"

        def draw(self, site, _seed):
            mask = control_sphere(CROP_ZYX, site.centre, 5)
            rank = np.cumsum(mask).reshape(mask.shape) / mask.sum()
            return Drawn((np.where(rank < changed, 50, site.healthy).astype(np.float32),), (mask,), 0.0)

    _, truth = insert_lesions(chest, SPACING, Partly(), count=1, seed=1)
    assert len(truth) == count
