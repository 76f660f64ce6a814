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
    half_precision,
)
from models.lidnet.config import NetworkConfig
from models.lidnet.joint import JointBatch
from models.lidnet.network import build as build_denoiser
from models.lidnet.roi import regions, roi_perceptual_loss

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
    assert same(detector, run.detector) is (recipe.detector == "frozen")
    assert ("detector's turn" in turns) is (recipe.detector == "in turns")
    assert (set(turns) == {"both at once"}) is (recipe.detector == "at once")
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


def test_at_once_neither_network_sees_what_the_other_has_just_learnt() -> None:
    both, one, other = (started("A6-joint") for _ in range(3))
    for run in (both, one, other):
        run.weights = {"pixel": 1.0, "perceptual": 0.3, "detection": 0.1}
    both._advance("both")
    one._advance("denoiser")
    other._advance("detector")
    for name in ("denoiser", "smoothed"):
        assert same(state_of(getattr(one, name)), getattr(both, name))
    assert same(state_of(other.detector), both.detector)
    assert not same(state_of(one.detector), both.detector)


def test_the_detector_learns_from_denoised_and_from_full_dose_slices_alike() -> None:
    run = started()
    batch = run._batch(run.step)
    with torch.no_grad(), half_precision(run.device):
        shown = (denoise_stack(run.denoiser, batch.low), batch.full)
        denoised, full = (float(detection_loss(run.detector, hu, batch.targets, run._draw(run.step))) for hu in shown)
    assert denoised != pytest.approx(full, rel=1e-3)
    assert run._advance("detector") == pytest.approx((denoised + full) / 2, rel=1e-5)


def test_regions_are_those_that_the_full_dose_shows() -> None:
    """Proposals on the denoised slices could be kept from arising."""
    run = started("A3")
    freeze(run.detector, learning=run.denoiser)
    batch = run._batch(1)
    annotated = [target.boxes for target in batch.targets]
    with torch.no_grad():
        denoised = denoise_stack(run.denoiser, batch.low)
        levels = [run.detector.features(hu) for hu in (denoised, batch.full)]
        by_low, by_full = (
            float(
                roi_perceptual_loss(
                    *levels, regions(run.detector, hu, annotated, run.config.roi).rois, run.detector.strides
                )
            )
            for hu in (denoised, batch.full)
        )
        measured = float(run._terms(denoised, batch, run._draw(1))["perceptual"])
    assert by_low != pytest.approx(by_full, rel=1e-4)
    assert measured == pytest.approx(by_full, rel=1e-5)


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


@pytest.mark.parametrize("arm", ["A6", "A6-joint"])
def test_resumed_in_any_turn_it_ends_with_the_same_bits(arm, tmp_path) -> None:
    whole = started(arm)
    whole.fit(tmp_path / "whole.pt", lambda *_: None)
    for step in range(1, QUICK.steps):
        first = started(arm)
        fit_until(first, step, tmp_path / "part.pt")
        again = started(arm)
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
