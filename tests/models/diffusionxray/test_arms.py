"""Weights become methods of the size and stage that their facts tell."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray, ModelError
from models.diffusionxray.arms import (
    CPU,
    LEARNT,
    bundled,
    by_ddpm,
    degraders_of,
    methods_of,
    network_of,
    restorer_of,
    sampler_of,
    unseen,
)
from models.diffusionxray.config import NetworkConfig
from models.diffusionxray.facts import facts_of
from models.diffusionxray.model import FAST
from models.diffusionxray.network import build
from models.diffusionxray.schedule import cosine
from models.diffusionxray.train import digest
from models.weights import save_weights

REGRESSOR = NetworkConfig(fold=2, stem=16, width=16, mults=(1, 2), time=False, residual=True)
REFINER = NetworkConfig(fold=2, stem=16, width=16, mults=(1, 2), time_scale=2000.0)
DDPM = NetworkConfig(inputs=2, fold=2, stem=16, width=16, mults=(1, 2))


def written(folder: Path, stage: str, config: NetworkConfig, **facts: object) -> Path:
    torch.manual_seed(len(stage))
    folder.mkdir(parents=True)
    save_weights(build(config), folder / "weights.safetensors")
    told = {"stage": stage, "network": asdict(config), **facts}
    (folder / "training.json").write_text(json.dumps(told))
    return folder / "weights.safetensors"


def both(folder: Path) -> tuple[Path, Path]:
    regressor = written(folder / "regressor", "regressor", REGRESSOR)
    refiner = written(folder / "refiner", "refiner", REFINER, regressor=digest(network_of(regressor, "regressor")))
    return regressor, refiner


def bundle(folder: Path) -> Path:
    network, facts = bundled(*both(folder))
    (folder / "both").mkdir()
    save_weights(network, folder / "both" / "restorer.safetensors")
    (folder / "both" / "training.json").write_text(json.dumps(facts))
    return folder / "both" / "restorer.safetensors"


@pytest.fixture
def picture() -> FloatArray:
    return np.random.default_rng(0).uniform(-0.8, 0.8, (52, 60)).astype(np.float32)


def test_a_bundle_restores_as_its_parts_and_the_same_again(tmp_path: Path, picture: FloatArray) -> None:
    weights = bundle(tmp_path)
    methods = methods_of("ours", weights, CPU, steps=(0, 2))
    assert list(methods) == ["ours, regressor alone", "ours, 2 steps"]
    for method in methods.values():
        first = method(picture, 0.3)
        assert first.shape == picture.shape
        np.testing.assert_array_equal(first, method(picture, 0.3))
    parts = restorer_of(weights, CPU)
    assert (parts.regressor.config, parts.refiner.config) == (REGRESSOR, REFINER)


def test_several_samples_have_a_spread(tmp_path: Path, picture: FloatArray) -> None:
    told = sampler_of(restorer_of(bundle(tmp_path), CPU))(picture, 0.3)
    assert told.spread is not None
    assert (told.spread > 0).all()


def test_a_refiner_of_another_regressor_is_not_bundled(tmp_path: Path) -> None:
    regressor, refiner = both(tmp_path)
    path = refiner.with_name("training.json")
    path.write_text(path.read_text().replace(json.loads(path.read_text())["regressor"], "0" * 64))
    with pytest.raises(ModelError, match="another regressor"):
        bundled(regressor, refiner)


def test_a_regressor_alone_and_the_papers_network_are_methods_too(tmp_path: Path, picture: FloatArray) -> None:
    regressor, ddpm = (
        written(tmp_path / stage, stage, config) for stage, config in (("regressor", REGRESSOR), ("ddpm", DDPM))
    )
    for name, weights, more in (("plain", regressor, []), ("paper", ddpm, ["paper, solver of 20 steps"])):
        methods = methods_of(name, weights, CPU, steps=(0, 4))
        assert list(methods) == [name, *more]
        for method in methods.values():
            told = method(picture, 0.3)
            assert told.shape == picture.shape
            assert np.isfinite(told).all()


class SeesTheCondition(torch.nn.Module):
    """Predicts the noise as if the clean image were its condition."""

    def __init__(self) -> None:
        super().__init__()
        self.config = NetworkConfig(inputs=2, fold=2, mults=(1, 2))
        self.none = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha = (1 + np.exp(-2 * cosine(FAST.schedule).log_snr_of(time.numpy().astype(np.float64)))) ** -0.5
        return (x[:, :1] - float(alpha[0]) * x[:, 1:]) / float(np.sqrt(1 - alpha[0] ** 2))


def test_the_ddpm_is_conditioned_on_the_image_and_ends_without_noise(picture: FloatArray) -> None:
    for method in by_ddpm("paper", SeesTheCondition(), FAST).values():  # type: ignore[arg-type]
        np.testing.assert_allclose(method(picture, 0.3), picture, atol=1e-6)


def test_the_ddpm_runs_with_the_shape_of_the_paper(picture: FloatArray) -> None:
    torch.manual_seed(1)
    network = build(replace(DDPM, norm="group", middle_attention=True, full_skip=False)).eval()
    for method in by_ddpm("paper", network, FAST).values():
        one, again = (method(picture, 0.3) for _ in range(2))
        assert one.shape == picture.shape
        assert len(np.unique(one)) > 256
        np.testing.assert_array_equal(one, again)


def test_a_refiner_alone_restores_nothing(tmp_path: Path) -> None:
    _, refiner = both(tmp_path)
    with pytest.raises(ModelError, match="restores nothing by itself"):
        methods_of("half", refiner, CPU, steps=(0,))
    with pytest.raises(ModelError, match="a regressor is wanted"):
        network_of(refiner, "regressor")


def test_facts_and_weights_must_fit(tmp_path: Path) -> None:
    regressor, _ = both(tmp_path)
    facts = regressor.with_name("training.json")
    facts.write_text('{"stage": "regressor", "network": {"colour": 1}}')
    with pytest.raises(ModelError, match="does not tell of the network"):
        network_of(regressor, "regressor")
    facts.write_text("not JSON")
    with pytest.raises(ModelError, match="not the facts"):
        facts_of(regressor)
    facts.write_text(json.dumps({"stage": "regressor", "network": asdict(DDPM)}))
    with pytest.raises(ModelError, match="not the weights of this network"):
        network_of(regressor, "regressor")


def test_a_learnt_degrader_is_there_with_the_clean_pictures_coarse_structure_too(
    tmp_path: Path, picture: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def darker_and_softer(clean: torch.Tensor, _seed: int) -> torch.Tensor:
        return 0.3 * torch.nn.functional.avg_pool2d(clean, 5, 1, 2, count_include_pad=False) - 0.6

    monkeypatch.setitem(LEARNT, "munit", lambda _weights, _device: darker_and_softer)
    (tmp_path / "munit").mkdir()
    (tmp_path / "munit" / "weights.safetensors").touch()
    found = degraders_of(tmp_path)
    assert list(found)[3:] == ["munit", "munit, coarse structure kept"]
    told, kept = (found[name](picture, 0.3, np.random.default_rng(5)) for name in list(found)[3:])
    assert abs(float(told.mean() - picture.mean())) > 0.3
    assert abs(float(kept.mean() - picture.mean())) < 0.01
    sigma = 3.0 / 0.3
    coarse, fine = (gaussian_filter(kept - one, sigma, mode="reflect") for one in (picture, told))
    np.testing.assert_allclose(kept - told, gaussian_filter(picture - told, sigma, mode="reflect"), atol=1e-5)
    assert np.abs(coarse).std() < np.abs(fine).std()


def test_degraders_without_training_are_physics_bicubic_and_hardly_any(tmp_path: Path, picture: FloatArray) -> None:
    found = degraders_of(tmp_path)
    assert list(found) == ["physics", "bicubic", "identity"]
    for degrader in (*found.values(), unseen):
        first, again = (degrader(picture, 0.3, np.random.default_rng(5)) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert first.shape == picture.shape
        assert not np.array_equal(first, picture)
