"""What every model on offer must keep to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.catalogue import catalogue
from models.contract import Acquisition, ModelError, Radiograph, SourceRef, Volume
from models.deeplesion.samples import LabelledVolume
from models.deeplesion.validate import as_volume
from models.diffusionxray.config import DiffusionXRayConfig
from models.simulation.cases import PlantedLesion, draw_case
from models.simulation.radiograph import Exposure
from models.simulation.radiograph_cases import nodule_case
from models.weights import FOLDER

OFFERED = catalogue()
MOST_BYTES = 32 * 2**20


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=OFFERED.values(), ids=OFFERED.keys())
def model(request):
    return request.param


@pytest.fixture
def denoiser():
    return OFFERED["lidnet-fast"]


@pytest.fixture
def detector():
    return OFFERED["deeplesion-fast"]


@pytest.fixture
def scorer():
    return OFFERED["clinreadnet-fast"]


@pytest.fixture
def volume() -> Volume:
    """Soft tissue in air with noise and a reconstruction circle: odd sizes on purpose."""
    rng = np.random.default_rng(1)
    axis = np.arange(75) - 37
    circle = np.hypot(axis[:, None], axis[:61] + 7) > 37
    voxels = np.where(np.hypot(axis[:, None], axis[:61] + 7) < 25, 50.0, -1000.0) + 30 * rng.standard_normal(
        (5, 75, 61)
    )
    padding = np.broadcast_to(circle, voxels.shape).copy()
    return Volume(
        voxels=np.where(padding, -2048, voxels).astype(np.float32),
        affine=np.eye(4),
        spacing_zyx_mm=(2.0, 0.8, 0.8),
        slice_origins_mm=np.zeros((5, 3)),
        sources=tuple(SourceRef(f"1.2.{k}") for k in range(5)),
        padding=padding,
    )


@pytest.fixture(scope="module")
def chest() -> tuple[Volume, tuple[PlantedLesion, ...]]:
    """Three large lesions at a quarter of the noise of a routine scan."""
    spacing = (2.5, 0.8, 0.8)
    case = draw_case("forbild-thorax", seed=11, shape_zyx=(16, 448, 448), spacing_zyx_mm=spacing, lesions=6)
    large = tuple(lesion for lesion in case.lesions if lesion.diameter_mm >= 10)
    noise = np.random.default_rng(2).normal(0, 5, case.voxels.shape).astype(np.float32)
    labelled = LabelledVolume(case.voxels + noise, spacing, case.lesions, "chest", "forbild-thorax", noise_free=False)
    return as_volume(labelled), large


@pytest.fixture
def restorer():
    return OFFERED["diffusionxray-fast"]


def test_denoiser_detector_scorer_and_restorer_are_on_offer():
    assert set(OFFERED) == {"lidnet-fast", "deeplesion-fast", "clinreadnet-fast", "diffusionxray-fast"}


def test_nothing_without_weights_is_on_offer(tmp_path):
    assert catalogue(tmp_path) == {}


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= MOST_BYTES


def test_every_weights_file_has_its_card_and_its_model():
    stems = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert stems == {path.stem for path in FOLDER.glob("*.toml")} == {model.weights for model in OFFERED.values()}


def test_the_card_says_what_a_reader_needs(model):
    card = model.card()
    assert card.name == model.name
    assert card.licence == "Apache-2.0"
    assert len(card.sha256) == 64
    assert card.limits
    assert card.metrics
    for collection in card.collections:
        assert collection["name"]
        assert collection["licence"]
        assert collection["attribution"]


def test_the_weights_are_the_cards(model):
    assert model.load().identity.weights_sha256 == model.card().sha256


def test_other_weights_are_refused(model, tmp_path):
    for path in FOLDER.glob(f"{model.weights}.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / model.card().file
    broken.write_bytes(broken.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="sha256"):
        model.load(folder=tmp_path)


def test_the_result_lies_on_the_grid_of_the_input(denoiser, volume):
    before = volume.voxels.copy()
    result = denoiser.load()(volume)
    assert result.shape == volume.voxels.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert np.array_equal(volume.voxels, before)
    assert volume.padding is not None
    assert (result[volume.padding] == -2048).all()


def test_the_same_input_gives_the_same_bits(denoiser, volume):
    assert np.array_equal(denoiser.load()(volume), denoiser.load()(volume))


def test_it_denoises_and_keeps_the_level(denoiser, volume):
    """Noise in the middle falls, its mean HU stays."""
    result = denoiser.load()(volume)
    middle = (slice(None), slice(27, 48), slice(20, 41))
    assert result[middle].std() < 0.8 * volume.voxels[middle].std()
    assert abs(result[middle].mean() - volume.voxels[middle].mean()) < 2


def test_lesions_are_found_with_what_a_report_needs(detector, chest):
    """A drawn chest of a family and a lesion generator that the training never saw."""
    volume, lesions = chest
    before = volume.voxels.copy()
    found = detector.load()(volume)
    assert np.array_equal(volume.voxels, before)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    hit = []
    for one in found:
        lesion = one.lesion(volume, detector.card().identity)
        assert lesion.mask.shape == volume.voxels.shape
        assert lesion.mask[lesion.slice_index].any()
        assert 0 < lesion.short_axis_mm <= lesion.long_axis_mm
        assert lesion.volume_mm3 > 0
        assert lesion.operating_point <= lesion.score <= 1
        hit += [number for number, truth in enumerate(lesions) if (lesion.mask[truth.box] & truth.mask).any()]
    assert set(hit), "how many it finds is in its card; none of several large ones would be a broken network"


def test_the_same_images_give_the_same_lesions(detector, chest):
    volume, _ = chest
    first, second = ([(one.score, one.axes, one.region.box) for one in detector.load()(volume)] for _ in range(2))
    assert first == second


def test_in_air_nothing_is_found(detector, volume):
    nothing = replace(volume, voxels=np.full_like(volume.voxels, -1000.0), padding=None)
    assert detector.load()(nothing) == ()


@pytest.fixture(scope="module")
def abdomen() -> Volume:
    """One slice of a drawn abdomen, of a family that no training saw, again and again with more noise."""
    case = draw_case("mird", seed=5, shape_zyx=(5, 512, 512), spacing_zyx_mm=(3.0, 0.8, 0.8))
    noise = gaussian_filter(np.random.default_rng(3).standard_normal((512, 512)), 0.8)
    noise /= noise.std()
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = 0.8, 0.8, 3.0, 1.0
    return Volume(
        np.stack([case.voxels[2] + sd * noise for sd in (4, 12, 24, 48, 90)]).astype(np.float32),
        affine,
        (3.0, 0.8, 0.8),
        np.outer(np.arange(5), (0.0, 0.0, 3.0)),
        tuple(SourceRef(f"1.2.{k}") for k in range(5)),
        Acquisition(modality="CT", kernel="B30f", body_part="ABDOMEN"),
    )


def test_the_score_falls_as_noise_rises(scorer, abdomen):
    before = abdomen.voxels.copy()
    found = scorer.load()(abdomen)
    assert np.array_equal(abdomen.voxels, before)
    assert (np.diff(found.scores) < 0).all(), found.scores
    assert found.scores[0] - found.scores[-1] > 1.5


def test_the_same_slices_get_the_same_scores(scorer, abdomen):
    first, second = (scorer.load()(abdomen).probabilities for _ in range(2))
    assert np.array_equal(first, second)


def test_what_it_was_not_made_for_gets_no_score(scorer, abdomen):
    head = replace(abdomen, acquisition=replace(abdomen.acquisition, body_part="HEAD"))
    found = scorer.load()(head)
    assert "head" in found.not_applicable
    assert found.scores.size == 0


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A drawn chest behind an ideal detector, 12 bits; no training saw it."""
    case = nodule_case(77, nodules=2, view=Exposure(detector_px=(320, 300), pixel_mm=0.4), voxel_zyx_mm=(1.4, 2.8, 1.4))
    return (1800 + 1200 * case.picture).astype(np.float32)


@pytest.fixture(scope="module")
def radiograph(truth) -> Radiograph:
    """The same with noise that is a little soft, as detectors have."""
    noise = gaussian_filter(np.random.default_rng(4).standard_normal(truth.shape), 0.5)
    pixels = np.rint(truth + 40 * noise / noise.std()).clip(0, 4095).astype(np.float32)
    return Radiograph(pixels, (0.0, 4095.0), SourceRef("1.2.77"), spacing_yx_mm=(0.36, 0.36), view="PA")


def test_a_restored_radiograph_is_nearer_to_the_truth_and_within_its_bounds(restorer, radiograph, truth):
    before = radiograph.pixels.copy()
    restored = restorer.load()(radiograph)
    assert np.array_equal(radiograph.pixels, before)
    assert restored.pixels.shape == truth.shape
    error = {name: np.sqrt(np.mean((image - truth) ** 2)) for name, image in (
        ("received", radiograph.pixels), ("safe", restored.safe), ("restored", restored.pixels))}  # fmt: skip
    assert error["safe"] < 0.8 * error["received"]
    assert error["restored"] < error["received"]
    guard = DiffusionXRayConfig().guard
    assert (np.abs(restored.safe - before) <= guard.safe_cap * restored.noise_sd + 1).all()
    assert (np.abs(restored.pixels - restored.safe) <= restored.allowed + 1).all()
    assert abs(float((restored.pixels - before).mean())) < 2


def test_two_reads_of_one_radiograph_are_equal(restorer, radiograph):
    first, second = (restorer.load()(radiograph).pixels for _ in range(2))
    assert np.array_equal(first, second)


def test_the_gain_of_the_detector_changes_nothing(restorer, radiograph):
    """The same image with four times the bits."""
    wide = replace(radiograph, pixels=16 * radiograph.pixels, value_range=(0.0, 65535.0))
    loaded = restorer.load()
    one, other = loaded(radiograph).pixels, loaded(wide).pixels / 16
    assert np.abs(one - other).max() <= 1
