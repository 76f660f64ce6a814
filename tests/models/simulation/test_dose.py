"""Noise: its size, its spectrum, its dependence on dose, and its insertion into images.

Tests named 3_4_n prove item n of the simulation dossier's section 3.4; item 1 is in test_projection.py.
"""

import math
from dataclasses import replace

import pytest
import torch

from bench.agree_with_catsim import PHANTOMS, own, recorded
from models.contract import Acquisition
from models.simulation.dose import NoiseFields, Scanner, bowtie, insert_noise, measure, noise_fields, scan, scanner_of
from models.simulation.geometry import FanBeam, ParallelBeam
from models.simulation.kernels import apodisation
from models.simulation.projection import MU_WATER_PER_MM, filtered_back_project, forward_project

SIDE, SPACING = 128, 2.4
PARALLEL = ParallelBeam(views=240, channels=200, pitch_mm=1.8)
WATER = (0.0, 0.0, 130.0, 1.0)


@pytest.fixture
def scanner():
    return Scanner(geometry=PARALLEL, photons=1e6, electronic_sigma=10, crosstalk=0.0)


@pytest.fixture
def water(image_of):
    return image_of(SIDE, SPACING, [WATER])


@pytest.fixture
def middle(disc_mask):
    return disc_mask(SIDE, SPACING, (0, 0, 60))


@pytest.mark.parametrize("line", [2.0, 5.0, 7.0])
def test_3_4_2_variance_of_a_line_integral_is_that_of_the_counts(line, scanner):
    """var = 1/λ · (1 + σe²/λ), over 80 000 readings; its own standard error is 0.5 %."""
    readings = measure(torch.full((1, 400, 200), line), scanner, fraction=1.0, seed=1)
    expected = 1e6 * torch.exp(torch.tensor(-line))
    variance = (1 + scanner.electronic_sigma**2 / expected) / expected
    assert readings.var() == pytest.approx(float(variance), rel=0.02)
    assert readings.mean() == pytest.approx(line, abs=0.002)


def test_a_starved_ray_reads_finite_and_biased(scanner):
    """Below about 100 photons the logarithm shifts the mean: expected, not repaired."""
    readings = measure(torch.full((1, 100, 200), 12.5), scanner, fraction=1.0, seed=1)
    assert torch.isfinite(readings).all()
    assert abs(readings.mean() - 12.5) > 0.05


def test_3_4_3_noise_grows_with_the_root_of_the_dose(scanner, water, middle):
    quiet = replace(scanner, electronic_sigma=0.0)
    assert scanned_noise(water, quiet, middle, 0.25) / scanned_noise(water, quiet, middle, 1.0) == pytest.approx(
        2, rel=0.04
    )


def test_3_4_3_electronic_noise_makes_it_grow_faster(scanner, water, middle):
    loud = replace(scanner, electronic_sigma=60.0)
    assert scanned_noise(water, loud, middle, 0.1) / scanned_noise(water, loud, middle, 1.0) > 1.1 * 10**0.5


def scanned_noise(water, scanner, middle, fraction, repeats=8):
    """Standard deviation over the middle and over repeated scans."""
    scans = scan(water.repeat(repeats, 1, 1), SPACING, scanner, fraction=fraction, seed=3)
    return float((scans - scans.mean(0))[:, middle].std() * (repeats / (repeats - 1)) ** 0.5)


def test_3_4_8_inserted_noise_equals_that_of_a_direct_scan(scanner, water, middle):
    """From 100 % to 25 % by insertion, and scanned at 25 %: same standard deviation."""
    repeats = water.repeat(8, 1, 1)
    full = scan(repeats, SPACING, scanner, fraction=1.0, seed=4)
    inserted = insert_noise(full, SPACING, scanner, fraction=0.25, seed=5)
    noise = (inserted - inserted.mean(0))[:, middle].std() * (8 / 7) ** 0.5
    assert noise == pytest.approx(scanned_noise(water, scanner, middle, 0.25), rel=0.04)


def test_3_4_6_inserted_noise_holds_no_anatomy(scanner, water, middle):
    noise = torch.cat([noise_fields(water, SPACING, scanner, seed=seed).at(0.1) for seed in range(6)])
    assert abs(noise.mean(0)[middle].mean()) < 0.3 * noise.std(0)[middle].mean()
    stacked = torch.stack([water[0].flatten(), noise[0].flatten()])
    assert abs(torch.corrcoef(stacked)[0, 1]) < 0.02


def test_3_4_6_two_scans_differ_by_no_anatomy(scanner, image_of):
    body = image_of(SIDE, SPACING, [WATER, (60.0, 20.0, 25.0, 0.8), (-50.0, -30.0, 30.0, -0.7)])
    first, second = (scan(body, SPACING, scanner, fraction=0.5, seed=seed)[0] for seed in (1, 2))
    stacked = torch.stack([body[0].flatten(), (first - second).flatten()])
    assert abs(torch.corrcoef(stacked)[0, 1]) < 0.02


def centre_noise_in_closed_form(geometry, diameter_mm, photons, electronic_sigma, kernel):
    """π²/M · σp² · a ∫ f² W² (2/3 + cos(2πfa)/3) df in HU: the last factor is linear interpolation, at any offset."""
    expected = photons * math.exp(-MU_WATER_PER_MM * diameter_mm)
    line_variance = (1 + electronic_sigma**2 / expected) / expected
    window = apodisation(kernel, 4097)
    f = torch.linspace(0, 0.5 / geometry.pitch_mm, 4097, dtype=torch.float64)
    power = f**2 * window**2 * (2 + torch.cos(2 * math.pi * f * geometry.pitch_mm)) / 3
    integral = 2 * torch.trapezoid(power, f)
    variance = math.pi**2 / geometry.views * line_variance * geometry.pitch_mm * integral
    return float(variance.sqrt()) / MU_WATER_PER_MM * 1000


@pytest.mark.parametrize(("kernel", "dossier"), [("ramp", 53.5), ("hann", 19.2)])
def test_noise_in_the_middle_of_a_water_disc_is_that_of_the_closed_form(kernel, dossier):
    """32 cm, 5e5 photons: two cells of the dossier's table 3.3, which holds a dose-independent 5 HU on top."""
    geometry = ParallelBeam(views=984, channels=736, pitch_mm=0.7)
    scanner = Scanner(geometry, kernel, photons=5e5, electronic_sigma=10, crosstalk=0.0)
    chord = 2 * (160**2 - geometry.coordinates().square()).clamp_min(0).sqrt()
    lines = (MU_WATER_PER_MM * chord).expand(6, geometry.views, -1)
    noisy = measure(lines, scanner, fraction=1.0, seed=1)
    image = filtered_back_project(noisy, geometry, shape=(32, 32), spacing_mm=0.7, kernel=kernel)
    noise = float((image.std(0).square().mean().sqrt()) / MU_WATER_PER_MM * 1000)
    assert noise == pytest.approx(centre_noise_in_closed_form(geometry, 320, 5e5, 10, kernel), rel=0.05)
    assert noise == pytest.approx(dossier, rel=0.15)


REFERENCE_MU, REFERENCE_PARALLEL = 0.02, ParallelBeam(views=720, channels=256, pitch_mm=1.4)
REFERENCE_SD = {"ramp": (13.6, 19.0, 28.0, 47.3), "hann": (5.6, 7.7, 10.7, 17.8)}
REFERENCE_DOSES = (1.0, 0.5, 0.25, 0.1)
REFERENCE_PATTERN_HU = 2.5
"""What its standard deviations over one image hold beside noise, at any dose and with either kernel: eight values, one
number."""


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_3_4_7_agrees_with_an_independent_simulator(phantom):
    """CatSim's numbers, kept by tests/bench/agree_with_catsim.py: HU within 5, noise within 10 %, peak within 5 %."""
    theirs = recorded()[phantom]
    ours = own(phantom, theirs.photons)
    for (mean, noise), (own_mean, own_noise) in zip(theirs.places, ours.places, strict=True):
        assert own_mean == pytest.approx(mean, abs=5)
        assert own_noise == pytest.approx(noise, rel=0.1)
    assert ours.peak_per_mm == pytest.approx(theirs.peak_per_mm, rel=0.05)


@pytest.fixture(scope="module")
def reference_scans():
    """The LIDnet dossier's 28 cm of water (section 5.1): kernel → images at each dose, HU, middle 84 mm."""
    torch.set_num_threads(1)
    chord = 2 * (140**2 - REFERENCE_PARALLEL.coordinates().square()).clamp_min(0).sqrt()
    lines = (REFERENCE_MU * chord).expand(4, REFERENCE_PARALLEL.views, -1)
    scanner = Scanner(REFERENCE_PARALLEL, photons=1e6, electronic_sigma=10, crosstalk=0.0)
    doses = [measure(lines, scanner, fraction=fraction, seed=1) for fraction in REFERENCE_DOSES]

    def image(noisy, kernel):
        mu = filtered_back_project(noisy, REFERENCE_PARALLEL, shape=(60, 60), spacing_mm=1.4, kernel=kernel)
        return (mu / REFERENCE_MU - 1) * 1000

    return {kernel: [image(noisy, kernel) for noisy in doses] for kernel in REFERENCE_SD}


def over_scans(images):
    return float(images.std(0).square().mean().sqrt())


@pytest.mark.parametrize("kernel", REFERENCE_SD)
def test_the_noise_of_the_lidnet_dossier_is_reproduced(kernel, reference_scans):
    measured = [math.hypot(over_scans(images), REFERENCE_PATTERN_HU) for images in reference_scans[kernel]]
    assert measured == pytest.approx(REFERENCE_SD[kernel], rel=0.05)


@pytest.mark.parametrize("kernel", REFERENCE_SD)
def test_noise_follows_the_root_of_the_dose_and_hu_stay_down_to_a_quarter(kernel, reference_scans):
    """Beyond it electronic noise and the logarithm make it grow faster."""
    full, half, quarter, tenth = reference_scans[kernel]
    for fraction, images in ((0.5, half), (0.25, quarter)):
        assert over_scans(images) * fraction**0.5 == pytest.approx(over_scans(full), rel=0.05)
        assert abs(images.mean()) < 1
    assert over_scans(tenth) * 0.1**0.5 > 1.05 * over_scans(full)


def test_the_streaks_of_the_lidnet_dossier_are_reproduced(disc_mask):
    """Fewer views without any noise: the same disc drawn on its pixels, ramp, over nine tenths of its radius."""
    side, spacing = 256, 1.4
    disc = disc_mask(side, spacing, (0, 0, 140)).float()[None] * REFERENCE_MU
    lines = forward_project(disc, spacing, REFERENCE_PARALLEL)
    images = [
        filtered_back_project(lines[:, ::factor], geometry, shape=(side, side), spacing_mm=spacing, kernel="ramp")[0]
        for factor in (1, 2, 4, 8, 12)
        for geometry in [REFERENCE_PARALLEL.sparser(factor)]
    ]
    inside = disc_mask(side, spacing, (0, 0, 126))
    errors = [(image - images[0])[inside] / REFERENCE_MU * 1000 for image in images[1:]]
    streaks_hu = [float(error.square().mean().sqrt()) for error in errors]
    assert streaks_hu == pytest.approx([1.1, 9.5, 19.7, 26.6], rel=0.04)


def test_full_dose_gets_no_noise():
    fields = NoiseFields(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    assert torch.equal(fields.at(1.0), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("fraction", [1.0, 0.25, 0.1])
def test_the_whole_noise_of_a_dose_is_that_of_full_dose_and_what_is_inserted(fraction):
    """Variances add: of quantum noise 1 + (1 − a) / a = 1 / a, of electronic noise 1 + (1 − a²) / a² = 1 / a²."""
    for quantum, electronic in ((3.0, 0.0), (0.0, 2.0)):
        fields = NoiseFields(torch.tensor([[[quantum]]]), torch.tensor([[[electronic]]]))
        parts = fields.whole(1.0).square() + fields.at(fraction).square()
        assert fields.whole(fraction).square().item() == pytest.approx(parts.item(), rel=1e-6)


@pytest.mark.parametrize("kernel", ["hann", "soft"])
def test_3_4_4_noise_spectrum_is_the_ramp_times_the_kernels_window(kernel, scanner, water):
    """f · W² · sinc⁴ of linear interpolation, in all directions alike at the centre of a disc; nothing at zero."""
    side = 48
    fields = noise_fields(water, SPACING, replace(scanner, kernel=kernel), seed=1, repeats=32, field_px=(side, side))
    taper = torch.hann_window(side, periodic=False)  # else the edges of the square leak into zero frequency
    power = torch.fft.fft2(fields.quantum * taper[:, None] * taper).abs().square().mean(0)
    f = torch.fft.fftfreq(side, SPACING)
    radius = torch.hypot(f[:, None], f)
    window = apodisation(kernel, 1001)[(radius * 2 * PARALLEL.pitch_mm * 1000).round().long().clamp(max=1000)]
    designed = radius * window**2 * torch.sinc(radius * PARALLEL.pitch_mm) ** 4
    rings = [(radius >= low) & (radius < low + 0.02) for low in torch.arange(0.05, 0.145, 0.02)]
    ratios = torch.stack([power[ring].mean() / designed[ring].mean() for ring in rings])
    assert (ratios / ratios.mean()).tolist() == pytest.approx([1.0] * len(rings), rel=0.1)
    assert power[0, 0] < 0.25 * max(power[ring].mean() for ring in rings)
    turn = torch.rad2deg(torch.atan2(f[:, None], f)) % 180
    sectors = [(90 - ((turn - centre) % 180 - 90).abs()) < 22.5 for centre in (0, 45, 90, 135)]
    ring = torch.stack(rings).any(0)
    shares = torch.stack([(power / designed)[ring & sector].mean() for sector in sectors])
    assert (shares / shares.mean()).tolist() == pytest.approx([1.0] * 4, rel=0.08)


def test_3_4_5_same_seed_same_bits_other_seed_other_noise(scanner, water):
    first, again, other = (insert_noise(water, SPACING, scanner, fraction=0.1, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_3_4_4_noise_is_lengthwise_in_a_lengthwise_body(scanner):
    """In an ellipse the noise runs along the long axis: rays along it are the starved ones."""
    axis = (torch.arange(SIDE) - (SIDE - 1) / 2) * SPACING
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ellipse = torch.where((x / 145) ** 2 + (y / 75) ** 2 < 1, 0.0, -1000.0)[None]
    noise = torch.cat([noise_fields(ellipse, SPACING, scanner, seed=seed).quantum for seed in range(4)])
    centre = noise[:, 48:80, 48:80]
    along, across = centre.diff(dim=2).square().mean(), centre.diff(dim=1).square().mean()
    assert across > 1.15 * along


def test_coarse_weights_give_the_noise_of_fine_ones(image_of, disc_mask):
    """Geometries that divide evenly are weighed by a four times coarser projection."""
    fine, odd = FanBeam(views=160, channels=240, pitch_mm=3.75), FanBeam(views=162, channels=240, pitch_mm=3.75)
    image = image_of(SIDE, SPACING, [WATER, (60.0, 20.0, 25.0, 0.8)])
    inside = disc_mask(SIDE, SPACING, (0, 0, 110))
    sd = [noise_fields(image, SPACING, Scanner(geometry=g), seed=1).quantum[0][inside].std() for g in (fine, odd)]
    assert sd[0] == pytest.approx(float(sd[1]), rel=0.05)


def test_crosstalk_smooths_the_noise(scanner, water, middle):
    sd = [
        noise_fields(water, SPACING, replace(scanner, crosstalk=share, kernel="ramp"), seed=1).quantum[0][middle].std()
        for share in (0.0, 0.02)
    ]
    assert sd[1] < sd[0]


def test_the_header_decides_the_photons():
    geometry = FanBeam(views=800)
    reference = scanner_of(Acquisition(exposure_mas=200, slice_thickness_mm=3, kvp=120, kernel="B40f"), geometry)
    half = scanner_of(Acquisition(exposure_mas=100, slice_thickness_mm=3, kvp=120, kernel="B31f"), geometry)
    assert half.photons == pytest.approx(reference.photons / 2)
    assert (reference.kernel, half.kernel) == ("hann", "soft")
    assert scanner_of(Acquisition(), geometry).photons == pytest.approx(reference.photons)
    assert scanner_of(Acquisition(exposure_mas=7), geometry).photons == pytest.approx(reference.photons)
    thin = Acquisition(exposure_mas=200, slice_thickness_mm=1, kvp=120)
    soft = Acquisition(exposure_mas=200, slice_thickness_mm=3, kvp=80)
    assert scanner_of(thin, geometry).photons == pytest.approx(reference.photons / 3)
    assert scanner_of(soft, geometry).photons == pytest.approx(reference.photons * (80 / 120) ** 2.5)


@pytest.mark.parametrize("part", ["quantum", "electronic"])
def test_noise_does_not_depend_on_how_finely_a_scan_is_simulated(water, middle, part):
    """In 160 views or in 800: the same photons, the same electronics."""
    sd = []
    for views in (160, 800):
        scanner = scanner_of(Acquisition(kernel="B31f"), FanBeam(views=views, channels=300, pitch_mm=3.0))
        fields = [noise_fields(water, SPACING, scanner, seed=seed) for seed in range(6)]
        sd.append(float(torch.stack([getattr(one, part)[0][middle] for one in fields]).std()))
    assert sd[0] == pytest.approx(sd[1], rel=0.12)


def test_the_bowtie_spares_the_middle():
    profile = bowtie(Scanner(geometry=PARALLEL, bowtie_radius_mm=160))
    assert profile[PARALLEL.channels // 2] == pytest.approx(1.0, abs=0.01)
    assert profile[0] < 0.1


def test_a_bowtie_moves_noise_from_the_middle_to_the_rim(scanner, image_of, disc_mask):
    """It takes photons where the body is thin: the middle keeps its noise, the rim gets more of it."""
    water = image_of(SIDE, SPACING, [WATER])
    centre = disc_mask(SIDE, SPACING, (0, 0, 30))
    rim = disc_mask(SIDE, SPACING, (0, 0, 125)) & ~disc_mask(SIDE, SPACING, (0, 0, 105))
    plain, shaped = (
        noise_fields(water, SPACING, replace(scanner, bowtie_radius_mm=radius), seed=2, repeats=4).quantum
        for radius in (None, 140.0)
    )
    assert shaped[:, centre].std() == pytest.approx(float(plain[:, centre].std()), rel=0.06)
    assert shaped[:, rim].std() > 1.2 * plain[:, rim].std()


def test_crosstalk_ties_neighbouring_channels_and_keeps_the_mean(scanner):
    """Correlation of neighbours c (1-2c) · 2 / ((1-2c)² + 2c²), from the weights (c, 1-2c, c)."""
    share = 0.05
    flat = torch.full((1, 400, 200), 3.0)
    readings = measure(flat, replace(scanner, crosstalk=share), fraction=1.0, seed=3)[0]
    noise = readings - readings.mean()
    correlation = (noise[:, 1:-2] * noise[:, 2:-1]).mean() / noise[:, 1:-1].square().mean()
    own = 1 - 2 * share
    assert correlation == pytest.approx(2 * share * own / (own**2 + 2 * share**2), abs=0.01)
    assert readings.mean() == pytest.approx(3.0, abs=0.002)
