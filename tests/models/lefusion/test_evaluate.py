"""The evaluation: each number moves when what it measures is made worse, and only then."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt

from models.diffusionxray.schedule import cosine
from models.lefusion import evaluate
from models.lefusion.config import SCHEDULE
from models.lefusion.data import draw_shape
from models.lefusion.evaluate import Made, auc, edge_auc, put, sites_of, speed_table, texture_table, texturers
from models.lefusion.histogram import LUNG, histogram, preset
from models.lefusion.shapes import mask_tables, middle_slice, reader_outlines, shape_of
from models.lefusion.synthesis import Sampling, Synthesiser
from models.lefusion.train import Trained
from seeded.lesion_crops import region

TIMES = cosine(SCHEDULE)


class Asked(torch.nn.Module):
    """In place of trained networks: the sphere shrunk as masks are, or the mean of the asked histogram."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, time, condition=None):
        if condition is None:
            state, wanted = x[:, :1], x[:, 1:]
        else:
            level = condition @ torch.from_numpy(LUNG.unit(LUNG.centres_hu))
            state, wanted = x, level[:, None, None, None, None].expand_as(x)
        alpha, sigma = (float(table[int(time)]) for table in (TIMES.alpha, TIMES.sigma))
        return (state - alpha * wanted) / sigma


@pytest.fixture(scope="module")
def sites():
    regions = [replace(region(seed=seed, radius=3 + seed % 3), key=f"chest{seed % 3}") for seed in range(9)]
    return sites_of(regions, 9)


@pytest.fixture(scope="module")
def synthesiser():
    known = np.stack([preset("solid")])
    return Synthesiser(Trained(Asked(), {"classes": 1}), Trained(Asked(), {}), known, Sampling(4))


def quiet(*_):
    pass


def cells(table, method):
    return next(row.values for row in table.rows if row.method == method)


def test_every_method_keeps_the_background_and_the_asked_grey_is_got(sites, synthesiser):
    methods = texturers({"LeFusion": synthesiser}, [region(seed=20)], Sampling(4))
    table = texture_table(sites, methods, quiet)
    assert [row.method for row in table.rows] == ["simulated lesion", *methods]
    for name in methods:
        assert cells(table, name)["background, HU"].mean == 0
        assert cells(table, name)["background, HU"].patients == 3
    assert cells(table, "simulated lesion")["greys, HU"].mean == 0
    assert cells(table, "simulated lesion")["edge"].mean == 1
    assert cells(table, "LeFusion")["greys, HU"].mean < 2 * LUNG.bin_hu
    assert cells(table, "copy and paste")["greys, HU"].mean < 2 * LUNG.bin_hu
    assert cells(table, "LeFusion")["edge"].mean < 1  # the composite's edge is softer than the test's hard ball


def test_a_background_that_changed_and_a_wrong_grey_are_seen(sites):
    site = sites[0]
    good = put(site, [np.full(site.hu.shape, -500, np.float32)])
    spoilt = good.image.copy()
    spoilt[0, 0, 0] += 3
    assert evaluate._numbers(replace(good, image=spoilt))["background, HU"] == pytest.approx(3, abs=1e-3)
    bright = put(site, [np.full(site.hu.shape, 100, np.float32)])
    assert evaluate._numbers(good)["greys, HU"] < LUNG.bin_hu
    assert evaluate._numbers(bright)["greys, HU"] > 300


def test_noise_that_is_missing_inside_is_seen(sites):
    site = max(sites, key=lambda one: one.mask.sum())
    rng = np.random.default_rng(1)
    noisy = rng.normal(-500, 30, site.hu.shape).astype(np.float32)
    with_noise, without = (put(site, [texture]) for texture in (noisy, np.full(site.hu.shape, -500, np.float32)))
    assert evaluate._noise(without, "fine") < 0.3
    assert evaluate._noise(with_noise, "fine") == pytest.approx(1, abs=0.25)


def test_a_hard_edge_gives_itself_away_and_the_same_lesion_does_not(sites):
    real = [Made(site, site.hu.astype(np.float32), histogram(site.hu, site.mask)) for site in sites]
    bordered = []
    for made in real:
        image = made.image.copy()
        image[binary_dilation(made.site.mask) & ~made.site.mask] -= 100
        bordered.append(replace(made, image=image))
    assert edge_auc(real, bordered).mean > 0.95
    assert edge_auc(real, real).mean == pytest.approx(0.5, abs=1e-9)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0])) == 0.5


def test_copies_are_nearest_in_histogram_and_keep_what_is_deep_deep(sites):
    site = sites[0]
    donor = region(radius=6, core_radius=3, seed=30)
    copy = evaluate._by_depth(donor, site)
    depth = distance_transform_edt(site.mask)[site.mask]
    values = copy[site.mask]
    assert set(np.unique(values)) == {-500.0, 60.0}
    assert depth[values == 60].min() >= depth[values == -500].max() - 1e-6


def test_histograms_diversity_and_speed_have_their_rows(sites, synthesiser):
    asked = evaluate.histogram_table(synthesiser, sites[:3], Sampling(3), quiet)
    means = [row.values["got mean, HU"].mean for row in asked.rows]
    assert [row.condition for row in asked.rows] == ["ground-glass", "part-solid", "solid"]
    assert means == sorted(means)
    for row in asked.rows:
        assert row.values["got mean, HU"].mean == pytest.approx(row.values["asked mean, HU"].mean, abs=150)
    spread = evaluate.diversity_table(synthesiser, sites[:3], Sampling(3), 2, quiet)
    assert spread.rows[0].values["apart, HU"].mean == pytest.approx(0, abs=1)
    assert spread.rows[1].values["apart, HU"].patients == 3


def test_two_equal_samplers_are_not_apart(sites, synthesiser, monkeypatch):
    monkeypatch.setattr(evaluate, "PAPER_SAMPLING", Sampling(5))
    [row] = speed_table(synthesiser, sites[:3], Sampling(3), quiet).rows
    assert row.values["greys, HU"].mean == pytest.approx(0, abs=1)
    assert row.values["mean, HU"].mean == pytest.approx(0, abs=1)


def test_a_mask_network_that_draws_its_sphere_is_in_it_and_of_its_size(synthesiser):
    outlines = [np.pad(np.ones((9, 9), bool), 5), np.pad(np.ones((6, 12), bool), 5)]
    response, shapes = mask_tables(
        synthesiser.mask.network, per_radius=2, sampling=Sampling(3), outlines=outlines, on_progress=quiet
    )
    for row in response.rows:
        radius = int(row.condition.split()[1])
        assert row.values["share in the sphere"].mean == 1
        assert row.values["diameter, voxels"].mean == pytest.approx(2 * radius, rel=0.12)
        assert row.values["centre off, voxels"].mean == pytest.approx(0, abs=1e-6)
    assert "0.99" in response.notes[0] or "1.000" in response.notes[0]
    assert shapes.rows[0].method == "DiffMask"
    assert shapes.rows[-1].values["elongation, apart"].mean == 0
    assert shapes.rows[0].values["elongation, apart"].mean > 0.3


def test_the_shape_of_a_disc_and_of_what_is_none():
    y, x = np.ogrid[-20:21, -20:21]
    diameter, elongation, compactness = shape_of(y**2 + x**2 <= 12**2)
    assert diameter == pytest.approx(24, rel=0.02)
    assert elongation == pytest.approx(1, abs=0.01)
    assert compactness == pytest.approx(1, abs=0.06)
    assert shape_of((y / 6) ** 2 + (x / 18) ** 2 <= 1)[1] == pytest.approx(3, rel=0.03)
    star = (np.abs(y) < 3) | (np.abs(x) < 3)
    assert shape_of(star & (y**2 + x**2 < 300))[2] < 0.6


def test_outlines_are_what_two_readers_share():
    agree = np.zeros((3, 16, 16), np.uint8)
    agree[0, 3:12, 3:12] = 1
    agree[1, 3:12, 3:12] = 2
    agree[2, 3:5, 3:5] = 4
    [outline] = reader_outlines(agree)
    assert np.array_equal(outline, agree[1] >= 2)
    assert middle_slice(draw_shape((16, 16, 16), np.random.default_rng(1), "train", diameter_mm=8)).any()
