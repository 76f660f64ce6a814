"""Collaborative training: denoiser and detector in turns, each frozen while the other learns.

source: LIDnet (arXiv 2104.08845) says that both are trained together; how is the dossier's (sections 3 and 4). Before
it stand the denoiser's training with the pixel loss (models/lidnet/train.py) and the detector's on clean slices
(models/deeplesion/train.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.contract import ModelError
from models.deeplesion.losses import Targets
from models.deeplesion.network import Detector
from models.device import has_fast_bfloat16
from models.lidnet.config import Preset, Socket
from models.lidnet.joint import JointBatch, JointStore
from models.lidnet.network import channels_last
from models.lidnet.roi import RoiConfig, map_perceptual_loss, regions, roi_perceptual_loss, shuffled
from models.lidnet.train import pixel_loss
from models.training import OnProgress, follow, smoothed_loss, write_checkpoint

Arm = Literal["A1", "A2", "A3", "A4", "A5", "A6", "A6-shuffled", "A6-joint"]
Turn = Literal["denoiser", "detector", "both"]
TURNS: Mapping[Turn, str] = {"denoiser": "denoiser's turn", "detector": "detector's turn", "both": "both at once"}
SMOOTHING = 0.95


@dataclass(frozen=True)
class Recipe:
    """What drives the denoiser in one arm of the ablation.

    perceptual      on the detector's whole maps, in its regions, or not at all
    detection       the detector's own loss on the denoised slices
    detector        stays as it is, learns in turns with the denoiser, or in the same steps
    shuffled        regions of another image: the control
    """

    perceptual: Literal["none", "map", "roi"] = "none"
    detection: bool = False
    detector: Literal["frozen", "in turns", "at once"] = "frozen"
    shuffled: bool = False


RECIPES: Mapping[Arm, Recipe] = {
    "A1": Recipe(),
    "A2": Recipe(perceptual="map"),
    "A3": Recipe(perceptual="roi"),
    "A4": Recipe(detection=True),
    "A5": Recipe(perceptual="roi", detection=True),
    "A6": Recipe(perceptual="roi", detection=True, detector="in turns"),
    "A6-shuffled": Recipe(perceptual="roi", detection=True, detector="in turns", shuffled=True),
    "A6-joint": Recipe(perceptual="roi", detection=True, detector="at once"),
}
"""A0 is the low-dose input itself. A6 is LIDnet; A5, A6 and A6-joint are three ways to train together."""


@dataclass(frozen=True)
class CollaborationConfig:
    """One collaborative training.

    rounds                      of a denoiser's turn and a detector's turn
    denoiser_steps, detector_steps  in each turn
    detection_share, perceptual_share   gradient of each term at the denoised image, relative to the pixel loss's,
                                measured on the first `balance_batches` batches and kept from then on
    """

    rounds: int
    denoiser_steps: int
    detector_steps: int
    batch: int
    crop_px: int
    denoiser_rate: float = 2e-5
    detector_rate: float = 1e-4
    detection_share: float = 0.1
    perceptual_share: float = 0.3
    balance_batches: int = 20
    noise_floor_hu: float = 15.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    checkpoint_every: int = 50
    roi: RoiConfig = field(default_factory=RoiConfig)

    @property
    def steps(self) -> int:
        """Of both turns, all rounds."""
        return self.rounds * (self.denoiser_steps + self.detector_steps)

    def lasting(self, steps: int) -> CollaborationConfig:
        """The same rounds with turns so long that there are about so many steps; what is measured before them too."""
        share = steps / self.steps
        return replace(
            self,
            denoiser_steps=max(1, round(share * self.denoiser_steps)),
            detector_steps=max(1, round(share * self.detector_steps)),
            balance_batches=max(4, min(self.balance_batches, steps // 10)),
        )

    def times(self, factor: float) -> CollaborationConfig:
        """With the detector's two terms weighed so many times as much."""
        return replace(
            self,
            detection_share=factor * self.detection_share,
            perceptual_share=factor * self.perceptual_share,
        )


COLLABORATION: dict[Preset, CollaborationConfig] = {
    "cpu": CollaborationConfig(rounds=3, denoiser_steps=150, detector_steps=50, batch=2, crop_px=256),
    "gpu": CollaborationConfig(
        rounds=4, denoiser_steps=130, detector_steps=50, batch=4, crop_px=256, checkpoint_every=240
    ),
}


def collaboration_of(preset: Preset, socket: Socket) -> CollaborationConfig:
    """The preset for this denoiser.

    RED-CNN computes at full resolution, 11 MFLOP a pixel and step: four stacks of five slices of 256² are 14 TFLOP.
    It gets two stacks of 128², an eighth of that, which still hold whole lesions.
    """
    config = COLLABORATION[preset]
    return replace(config, batch=2, crop_px=128) if socket == "red-cnn" else config


def half_precision(device: torch.device) -> torch.autocast:
    """bf16 for the convolutions of both networks where the device multiplies it fast; float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))


def denoise_stack(denoiser: nn.Module, hu: Tensor) -> Tensor:
    """Every slice of (B, M, H, W), HU, by itself."""
    return torch.as_tensor(denoiser(hu.flatten(0, 1)[:, None])).reshape(hu.shape)


def detection_loss(detector: Detector, hu: Tensor, targets: Sequence[Targets], draw: torch.Generator) -> Tensor:
    """The four losses of proposals and heads."""
    losses = detector.losses(hu, targets, generator=draw)
    return torch.stack([losses[name] for name in ("rpn_cls", "rpn_box", "roi_cls", "roi_box")]).sum()


class Collaboration:
    """The state of one collaborative training: all of it is in the checkpoint."""

    def __init__(
        self,
        denoiser: nn.Module,
        detector: Detector,
        store: JointStore,
        config: CollaborationConfig,
        *,
        arm: Arm,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """denoiser, detector   trained apart; both are changed in place."""
        self.device = torch.device(device)
        self.denoiser = channels_last(denoiser.to(self.device))
        self.detector = detector.to(self.device)
        self.smoothed = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.store, self.config = store, config
        self.arm, self.recipe, self.seed = arm, RECIPES[arm], seed
        self.denoiser_optimiser = torch.optim.Adam(self.denoiser.parameters(), lr=config.denoiser_rate)
        self.detector_optimiser = torch.optim.AdamW(self.detector.parameters(), lr=config.detector_rate)
        self.step = 0
        self.weights: dict[str, float] = {}
        self.seen = {"annotated": 0, "proposed": 0}
        self.late_loss = math.nan

    def fit(self, checkpoint: Path, report: OnProgress) -> None:
        """The remaining steps. raises ModelError where a loss is no longer finite"""
        if not self.weights:
            self._balance()
        while self.step < self.config.steps:
            turn = self._turn()
            loss = self._advance(turn)
            if not math.isfinite(loss):
                raise ModelError(f"arm {self.arm}: the loss is no longer finite at step {self.step}")
            self.late_loss = smoothed_loss(self.late_loss, loss, SMOOTHING)
            self.step += 1
            report(f"{self.arm}, {TURNS[turn]}", self.step, self.config.steps, self.late_loss)
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save(checkpoint)

    def _turn(self) -> Turn:
        """In arms without a detector's turn the denoiser takes its steps too: every arm has the same budget."""
        if self.recipe.detector == "at once":
            return "both"
        config = self.config
        within = self.step % (config.denoiser_steps + config.detector_steps)
        learns = self.recipe.detector == "in turns" and within >= config.denoiser_steps
        return "detector" if learns else "denoiser"

    def _advance(self, turn: Turn) -> float:
        """One step; both gradients are taken before either network moves. The loss (denoiser's, where both learn)."""
        losses = []
        if turn != "detector":
            losses.append(self._denoiser_gradient())
        if turn != "denoiser":
            losses.append(self._detector_gradient())
        if turn != "detector":
            self._descend(self.denoiser, self.denoiser_optimiser)
            follow(self.smoothed, self.denoiser, self.config.ema_decay)
        if turn != "denoiser":
            self._descend(self.detector, self.detector_optimiser)
        return losses[0]

    def _batch(self, step: int) -> JointBatch:
        config = self.config
        return self.store.batch(
            step,
            size=config.batch,
            crop_px=config.crop_px,
            noise_floor_hu=config.noise_floor_hu,
            device=self.device,
        )

    def _draw(self, step: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed((self.seed << 32) + step)

    def _denoiser_gradient(self) -> float:
        freeze(self.detector, learning=self.denoiser)
        self.denoiser_optimiser.zero_grad(set_to_none=True)
        batch = self._batch(self.step)
        with half_precision(self.device):
            terms = self._terms(denoise_stack(self.denoiser, batch.low), batch, self._draw(self.step))
        loss = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _detector_gradient(self) -> float:
        """Half on denoised slices, half on full-dose ones: studies that nobody denoises must stay readable to it."""
        freeze(self.denoiser, learning=self.detector)
        self.detector_optimiser.zero_grad(set_to_none=True)
        batch = self._batch(self.step)
        with torch.no_grad(), half_precision(self.device):
            denoised = denoise_stack(self.denoiser, batch.low)
        with half_precision(self.device):
            parts = [
                detection_loss(self.detector, hu, batch.targets, self._draw(self.step)) for hu in (denoised, batch.full)
            ]
        loss = torch.stack(parts).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _terms(self, denoised: Tensor, batch: JointBatch, draw: torch.Generator) -> dict[str, Tensor]:
        """What the arm asks of the denoised slices (B, M, H, W)."""
        terms = {"pixel": pixel_loss(denoised, batch.full, batch.weight)}
        if self.recipe.perceptual != "none":
            with torch.no_grad():
                reference = self.detector.features(batch.full)
            ours = self.detector.features(denoised)
            if self.recipe.perceptual == "map":
                terms["perceptual"] = map_perceptual_loss(ours, reference)
            else:
                annotated = [target.boxes for target in batch.targets]
                found = regions(self.detector, batch.full, annotated, self.config.roi, levels=reference)
                self.seen["annotated"] += found.annotated
                self.seen["proposed"] += found.proposed
                found = shuffled(found, len(denoised)) if self.recipe.shuffled else found
                terms["perceptual"] = roi_perceptual_loss(ours, reference, found.rois, self.detector.strides)
        if self.recipe.detection:
            terms["detection"] = detection_loss(self.detector, denoised, batch.targets, draw)
        return terms

    def _balance(self) -> None:
        """Weights that give each term its share of the pixel loss's gradient at the denoised image."""
        freeze(self.detector, learning=self.denoiser)
        norms: dict[str, list[float]] = {}
        for number in range(self.config.balance_batches):
            step = self.config.steps + number  # batches that no step sees
            batch = self._batch(step)
            with torch.no_grad(), half_precision(self.device):
                denoised = denoise_stack(self.denoiser, batch.low)
            denoised.requires_grad_(True)
            with half_precision(self.device):
                terms = self._terms(denoised, batch, self._draw(step))
            for name, value in terms.items():
                (gradient,) = torch.autograd.grad(value, denoised, retain_graph=True)
                norms.setdefault(name, []).append(float(gradient.norm()))
        means = {name: sum(values) / len(values) for name, values in norms.items()}
        shares = {"pixel": 1.0, "perceptual": self.config.perceptual_share, "detection": self.config.detection_share}
        self.weights = {name: shares[name] * means["pixel"] / mean if mean > 0 else 0.0 for name, mean in means.items()}

    def _descend(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), self.config.gradient_clip)
        optimiser.step()

    def facts(self) -> dict[str, object]:
        """What this training was: its terms' weights as measured, the regions it saw by their origin, every number."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "steps": self.step,
            "weights": self.weights,
            "regions": self.seen,
            **asdict(self.config),
        }

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "arm": self.arm,
            "seed": self.seed,
            "step": self.step,
            "weights": self.weights,
            "seen": self.seen,
            "late_loss": self.late_loss,
            "denoiser": self.denoiser.state_dict(),
            "smoothed": self.smoothed.state_dict(),
            "detector": self.detector.state_dict(),
            "denoiser_optimiser": self.denoiser_optimiser.state_dict(),
            "detector_optimiser": self.detector_optimiser.state_dict(),
        }
        write_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        raises   ModelError     it is of another arm or seed
        """
        # On the CPU: what belongs on the device is copied there, the optimisers' step counters do not.
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (state["arm"], state["seed"]) != (self.arm, self.seed):
            raise ModelError(f"the checkpoint belongs to arm {state['arm']}, seed {state['seed']}")
        self.step, self.weights, self.seen = state["step"], state["weights"], state["seen"]
        self.late_loss = state["late_loss"]
        for name in ("denoiser", "smoothed", "detector", "denoiser_optimiser", "detector_optimiser"):
            getattr(self, name).load_state_dict(state[name])


def freeze(frozen: nn.Module, *, learning: nn.Module) -> None:
    """One learns, the other stays as it is to the last buffer; gradients still run through it."""
    frozen.eval().requires_grad_(False)
    learning.train().requires_grad_(True)
