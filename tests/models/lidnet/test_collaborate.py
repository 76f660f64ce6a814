"""Collaborative training: who learns when, who does not, and that a restart changes nothing."""

from dataclasses import replace

import pytest
import torch

from models.contract import ModelError
from models.deeplesion.config import NetworkConfig as DetectorConfig
from models.deeplesion.losses import Targets
from models.deeplesion.network import build as build_detector
from models.lidnet.collaborate import (
    RECIPES,
    Collaboration,
    CollaborationConfig,
    denoise_stack,
    detection_loss,
    freeze,
)
from models.lidnet.config import NetworkConfig
from models.lidnet.joint import JointBatch
from models.lidnet.network import build as build_denoiser

SIDE, CPU = 64, torch.device("cpu")
QUICK = CollaborationConfig(
    rounds=2,
    denoiser_steps=2,
    detector_steps=1,
    batch=2,
    crop_px=SIDE,
    denoiser_rate=1e-3,
    balance_batches=2,
    checkpoint_every=1,
)
DETECTOR = DetectorConfig(
    categories=("lesion",),
    widths=(16, 16),
    fpn_channels=16,
    rpn_width=16,
    head_widths=(16, 16),
    mask_width=16,
    anchor_sides=((16.0,), (32.0,)),
)


class Discs:
    """A disc in each image, noise on it."""

    def batch(
        self, step: int, *, size: int, crop_px: int, noise_floor_hu: float, device: torch.device = CPU
    ) -> JointBatch:
        generator = torch.Generator().manual_seed(step)
        y, x = torch.meshgrid(torch.arange(crop_px), torch.arange(crop_px), indexing="ij")
        full = torch.where((y - 30).square() + (x - 26).square() < 49, 90.0, 40.0).expand(size, 3, -1, -1)
        noise = 40 * torch.randn(full.shape, generator=generator)
        box = torch.tensor([[14.0, 18, 38, 42]])
        weight = torch.full((size, 1, 1, 1), 1 / 40**2)
        targets = [Targets(box, torch.tensor([0])) for _ in range(size)]
        return JointBatch(full + noise, full.clone(), weight, targets)


def started(arm: str = "A6", seed: int = 3) -> Collaboration:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    denoiser = build_denoiser(NetworkConfig(widths=(16, 16)))
    with torch.no_grad():  # as built it removes nothing, and nothing would reach its deeper layers
        denoiser.body.tail.weight.normal_(std=0.05)
    return Collaboration(denoiser, build_detector(DETECTOR), Discs(), QUICK, arm=arm, seed=seed)


def state_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(before: dict[str, torch.Tensor], network: torch.nn.Module) -> bool:
    after = network.state_dict()
    return all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def fit_until(run: Collaboration, step: int, checkpoint) -> None:
    class Enough(Exception):
        pass

    def stop(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == step:
            run.save(checkpoint)
            raise Enough

    with pytest.raises(Enough):
        run.fit(checkpoint, stop)


def test_in_the_denoisers_turn_the_detector_stays_to_the_last_buffer(tmp_path) -> None:
    run = started()
    detector, denoiser = state_of(run.detector), state_of(run.denoiser)
    fit_until(run, QUICK.denoiser_steps, tmp_path / "c.pt")
    assert same(detector, run.detector)
    assert not same(denoiser, run.denoiser)


def test_in_the_detectors_turn_the_denoiser_stays(tmp_path) -> None:
    run = started()
    fit_until(run, QUICK.denoiser_steps, tmp_path / "c.pt")
    detector, denoiser, smoothed = state_of(run.detector), state_of(run.denoiser), state_of(run.smoothed)
    fit_until(run, QUICK.denoiser_steps + 1, tmp_path / "c.pt")
    assert same(denoiser, run.denoiser)
    assert same(smoothed, run.smoothed)
    assert not same(detector, run.detector)


@pytest.mark.parametrize("arm", RECIPES)
def test_every_arm_runs_with_the_terms_of_its_recipe(arm, tmp_path) -> None:
    run = started(arm)
    detector = state_of(run.detector)
    turns: list[str] = []
    run.fit(tmp_path / "c.pt", lambda what, *_: turns.append(what.split(", ")[1]))
    recipe = RECIPES[arm]
    expected = {"pixel"} | ({"perceptual"} if recipe.perceptual != "none" else set())
    assert run.weights.keys() == expected | ({"detection"} if recipe.detection else set())
    assert len(turns) == QUICK.steps
    assert same(detector, run.detector) is not recipe.detector_turns
    assert ("detector's turn" in turns) is recipe.detector_turns
    assert (run.seen["annotated"] > 0) is (recipe.perceptual == "roi")


def test_the_detectors_loss_reaches_the_denoiser_through_frozen_weights() -> None:
    run = started("A4")
    freeze(run.detector, learning=run.denoiser)
    batch = Discs().batch(1, size=2, crop_px=SIDE, noise_floor_hu=15)
    loss = detection_loss(
        run.detector, denoise_stack(run.denoiser, batch.low), batch.targets, torch.Generator().manual_seed(1)
    )
    loss.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in run.denoiser.parameters())
    assert all(parameter.grad is None for parameter in run.detector.parameters())


def test_terms_get_their_share_of_the_gradient() -> None:
    run = started("A5")
    run._balance()
    batch = run._batch(QUICK.steps)
    with torch.no_grad():
        denoised = denoise_stack(run.denoiser, batch.low)
    denoised.requires_grad_(True)
    norms = {}
    for name, value in run._terms(denoised, batch, run._draw(QUICK.steps)).items():
        (gradient,) = torch.autograd.grad(run.weights[name] * value, denoised, retain_graph=True)
        norms[name] = float(gradient.norm())
    assert norms["perceptual"] / norms["pixel"] == pytest.approx(QUICK.perceptual_share, rel=0.5)
    assert norms["detection"] / norms["pixel"] == pytest.approx(QUICK.detection_share, rel=0.5)


def test_resumed_in_any_turn_it_ends_with_the_same_bits(tmp_path) -> None:
    whole = started()
    whole.fit(tmp_path / "whole.pt", lambda *_: None)
    for step in range(1, QUICK.steps):
        first = started()
        fit_until(first, step, tmp_path / "part.pt")
        again = started(seed=3)
        again.load(tmp_path / "part.pt")
        again.fit(tmp_path / "part.pt", lambda *_: None)
        for name in ("denoiser", "smoothed", "detector"):
            assert same(state_of(getattr(whole, name)), getattr(again, name)), (step, name)


def test_a_checkpoint_of_another_arm_is_refused(tmp_path) -> None:
    run = started("A5")
    run.save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="arm A5"):
        started("A6").load(tmp_path / "c.pt")


def test_the_denoiser_sees_every_slice_by_itself() -> None:
    run = started()
    hu = 50 * torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        together = denoise_stack(run.denoiser, hu)
        alone = run.denoiser(hu[1:2, 2:3])
    torch.testing.assert_close(together[1:2, 2:3], alone, atol=1e-3, rtol=1e-4)


def test_a_broken_loss_stops_the_training(tmp_path) -> None:
    run = started("A1")
    run.config = replace(QUICK)
    run.weights = {"pixel": float("nan")}
    with pytest.raises(ModelError, match="no longer finite"):
        run.fit(tmp_path / "c.pt", lambda *_: None)
