"""The steps of DiffusionXRay's training, each on what the one before left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import Result

from models.contract import FloatArray, SourceRef, Volume
from models.diffusionxray.data import Domain, Picture, load_pictures, save_picture
from node.cli.series import upright_voxels
from node.cli.training_diffusionxray import _shares
from node.errors import ConfigurationError, NotEligible

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def hills(seed: int, side: int = 272) -> FloatArray:
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((side, side)), 12) * 30 + gaussian_filter(
        rng.standard_normal((side, side)), 2
    )
    unit: FloatArray = (0.3 * field / field.std()).clip(-1, 0.8).astype(np.float32)
    return unit


@pytest.fixture
def out(tmp_path: Path) -> Path:
    domains: tuple[Domain, ...] = ("hq", "lq")
    for seed, domain in enumerate(domains):
        for number in range(2):
            picture = Picture(f"p{number}", "made", hills(10 * seed + number), 0.25, domain, "train")
            save_picture(picture, tmp_path / "run" / "pictures")
    return tmp_path / "run"


def told(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_from_pictures_to_one_file_of_weights(run: Run, out: Path) -> None:
    command = ("train", "diffusionxray")
    for step in ("munit", "prior"):
        told(run(*command, step, "--out", out, "--steps", "1"))
    # with one step of training it is noise: all that is known is that what was made was judged and counted
    said = told(run(*command, "pairs", "--out", out, "--by", "munit", "--count", "1"))
    assert "pairs of 4 crops; dropped now:" in said
    told(run(*command, "munit", "--out", out, "--steps", "2"))
    done = run(*command, "pairs", "--out", out, "--by", "munit", "--count", "1")
    assert done.exit_code == 2
    assert "pairs of other weights" in " ".join(done.output.split())
    shares = ("--mix", "physics=1")
    told(run(*command, "regressor", "--out", out, "--steps", "1", "--workers", "1", *shares))
    told(run(*command, "refiner", "--out", out, "--steps", "1", *shares))
    said = told(run(*command, "bundle", "--out", out))
    assert "evaluate diffusionxray" in said
    facts = json.loads((out / "restorer" / "training.json").read_text())
    assert facts["regressor"]["mix"] == {"physics": 1.0}
    assert (facts["regressor"]["pictures"], facts["regressor"]["patients"]) == (2, 2)
    assert facts["regressor"]["keep_coarse"] is True
    assert facts["refiner"]["regressor"]
    assert (out / "restorer" / "weights.safetensors").is_file()


def test_a_step_taken_again_changes_nothing(run: Run, out: Path) -> None:
    command = ("train", "diffusionxray", "regressor", "--out", out, "--steps", "1", "--mix", "bicubic=1")
    told(run(*command))
    weights = out / "regressor" / "weights.safetensors"
    before = weights.read_bytes()
    told(run(*command))
    assert weights.read_bytes() == before


def test_the_order_of_the_steps_is_in_the_help_and_in_the_errors(run: Run, out: Path, tmp_path: Path) -> None:
    said = told(run("train", "diffusionxray", "--help"))
    steps = ["prepare --images", "munit --out", "prior --out", "pairs --out", "regressor --out", "refiner --out"]
    places = [said.index(f"diffusionxray {step}") for step in [*steps, "bundle --out"]]
    assert places == sorted(places)
    for step, missing in (
        ("pairs", "train munit first"),
        ("refiner", "train regressor first"),
        ("bundle", "regressor"),
    ):
        done = run("train", "diffusionxray", step, "--out", out)
        assert done.exit_code == 2
        assert missing in " ".join(done.output.split())
    done = run("train", "diffusionxray", "munit", "--out", tmp_path / "nothing")
    assert done.exit_code == 2
    assert "no prepared pictures" in " ".join(done.output.split())
    done = run("train", "diffusionxray", "regressor", "--out", out, "--steps", "1")
    assert done.exit_code == 2
    assert "no pairs of the degrader" in " ".join(done.output.split())


def test_images_become_pictures_of_their_split(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cxr"
    folder.mkdir()
    for number in range(2):
        grey = ((hills(number) + 1) * 120).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"0000000{number}_000.png")
    told(
        run(
            "train", "diffusionxray", "prepare", "--images", folder, "--spacing", "0.3", "--split", "test",
            "--out", tmp_path / "run",
        )
    )  # fmt: skip
    found = load_pictures(tmp_path / "run" / "pictures", split="test")
    assert [one.key for one in found] == ["00000000", "00000001"]
    assert found[0].spacing_mm == 0.3


def test_what_to_prepare_must_be_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cxr").mkdir()
    for arguments, words in (
        (("--images", tmp_path / "cxr"), "how large a pixel is"),
        ((), "nothing to prepare"),
        (("--ct", tmp_path / "cxr"), "no axial CT series of 20 images or more"),
        (("--images", tmp_path / "cxr", "--spacing", "200"), "--spacing"),
    ):
        done = run("train", "diffusionxray", "prepare", *arguments, "--out", tmp_path / "run")
        assert done.exit_code == 2
        assert words in " ".join(done.output.split())


def test_shares_are_numbers() -> None:
    assert _shares(["physics=0.5", "munit=2"]) == {"physics": 0.5, "munit": 2.0}
    with pytest.raises(ConfigurationError, match="NAME=SHARE"):
        _shares(["physics"])
    with pytest.raises(ConfigurationError, match="its share already"):
        _shares(["physics=1", "physics=2"])


def volume(affine: np.ndarray, padding: np.ndarray | None = None) -> Volume:
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return Volume(voxels, affine, (1, 1, 1), np.zeros((2, 3)), (SourceRef("1"), SourceRef("2")), padding=padding)


def test_ct_is_turned_upright_for_its_drr() -> None:
    upright = np.zeros((4, 4))
    upright[2, 0] = upright[1, 1] = upright[0, 2] = upright[3, 3] = 1
    straight = volume(upright)
    np.testing.assert_array_equal(upright_voxels(straight), straight.voxels)
    prone = upright.copy()
    prone[1, 1] = prone[0, 2] = -1
    np.testing.assert_array_equal(upright_voxels(volume(prone)), straight.voxels[:, ::-1, ::-1])
    padding = np.zeros((2, 3, 4), bool)
    padding[0, 0, 0] = True
    assert upright_voxels(volume(upright, padding))[0, 0, 0] == -1000
    sagittal = np.zeros((4, 4))
    sagittal[0, 0] = sagittal[2, 1] = sagittal[1, 2] = sagittal[3, 3] = 1
    with pytest.raises(NotEligible, match="not axial"):
        upright_voxels(volume(sagittal))
