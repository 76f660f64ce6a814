"""Training of the translator on unpaired pictures: seeded, resumable at any checkpoint to the same weights.

A run of its own, as two optimisers take turns: in each step the discriminators first, then, against the discriminators
just moved, the two domains. Both see the same translated pictures.

source: dossier 3.3
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.facts import FACTS, facts_for, fill, kept_up, write_facts
from models.diffusionxray.munit import CriticPair, Critics, Domain, Munit, MunitConfig
from models.training import (
    OnProgress,
    batches,
    follow,
    hold_to,
    read_checkpoint,
    smoothed_loss,
    write_checkpoint,
)
from models.weights import save_weights

STAGE = "munit"
STYLES = 128
"""Of real degraded pictures, kept beside the weights."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class LossWeights:
    """What each part of the domains' loss counts. Published: 10, 1, 1, 1; the cycle is 0, or 10 in some presets."""

    reconstruction: float = 10.0
    content: float = 1.0
    style: float = 1.0
    adversarial: float = 1.0
    cycle: float = 0.0


@dataclass(frozen=True)
class MunitTraining:
    """Length, batch and rates of one training.

    batch           pictures of each domain per step        crop_px     their side
    halve_every     steps after which the learning rate is halved, again and again
    gradient_clip   norm of the gradients at most; the published training has none
    ema_decay       of the averaged domains, which ship
    """

    steps: int = 6000
    batch: int = 2
    crop_px: int = 128
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-4
    halve_every: int = 100_000
    gradient_clip: float | None = None
    ema_decay: float = 0.999
    checkpoint_every: int = 250
    weights: LossWeights = LossWeights()


CPU_TRAINING = MunitTraining(
    steps=4500,
    batch=2,
    learning_rate=5e-4,
    halve_every=1500,
    gradient_clip=5.0,
    ema_decay=0.998,
    weights=LossWeights(cycle=10.0),
)
"""For two cores an hour: few steps need a high rate, and the cycle of the published 512-pixel preset to keep nodules.
Crops of a DRR that are nearly flat make steep gradients in the normalisation: unclipped, at 1e-3, it broke after 1,224
steps. Crops of 64 pixels are twice as fast, and further from the larger ones that it is used on."""

GPU_TRAINING = MunitTraining(
    steps=5000,
    batch=8,
    learning_rate=5e-4,
    halve_every=1500,
    gradient_clip=5.0,
    checkpoint_every=500,
    weights=LossWeights(cycle=10.0),
)
"""The same for a GPU: more pictures a step and larger ones, and a rate that falls to an eighth. The published 1e-4 is
for a hundred thousand steps and more."""


class Unpaired(Protocol):
    """Pictures of both domains, float32 (B, 1, H, W) in [−1, 1]; no two of them belong together."""

    @property
    def hq(self) -> Tensor: ...
    @property
    def lq(self) -> Tensor: ...


class UnpairedStore(Protocol):
    """Batches that follow from the number of the step alone."""

    def batch(self, step: int, training: MunitTraining, /) -> Unpaired: ...


@dataclass(frozen=True, eq=False)
class Crossing:
    """One domain's pictures on their way to the other.

    real        the pictures                        content, style      their codes
    own         decoded in their own style          drawn               the other domain's style, from N(0, I)
    made        their content in that style
    """

    real: Tensor
    own: Tensor
    content: Tensor
    style: Tensor
    drawn: Tensor
    made: Tensor


def cross(munit: Munit, hq: Tensor, lq: Tensor, draws: torch.Generator) -> tuple[Crossing, Crossing]:
    """Encode a batch, decode it in its own style and in a drawn one of the other domain: HQ to LQ, and LQ to HQ.

    draws    a generator on the CPU: styles are the same on every device
    """
    (content_hq, style_hq), (content_lq, style_lq) = munit.hq.encode(hq), munit.lq.encode(lq)
    to_hq, to_lq = (torch.randn(style.shape, generator=draws).to(hq) for style in (style_lq, style_hq))
    all_hq = munit.hq.decode(torch.cat([content_hq, content_lq]), torch.cat([style_hq, to_hq]))
    all_lq = munit.lq.decode(torch.cat([content_lq, content_hq]), torch.cat([style_lq, to_lq]))
    return (
        Crossing(hq, all_hq[: len(hq)], content_hq, style_hq, to_lq, all_lq[len(lq) :]),
        Crossing(lq, all_lq[: len(lq)], content_lq, style_lq, to_hq, all_hq[len(hq) :]),
    )


def critics_loss(critics: Critics, real: Tensor, made: Tensor) -> Tensor:
    """Least squares: real pictures are to be 1 and made ones 0, averaged over patches and added over scales.

    source   LSGAN (arXiv 1611.04076) with a = 0, b = c = 1
    """
    pairs = zip(critics(real), critics(made.detach()), strict=True)
    return torch.stack([(true - 1).square().mean() + false.square().mean() for true, false in pairs]).sum()


def fooling_loss(critics: Critics, made: Tensor) -> Tensor:
    """The other side: made pictures are to be 1."""
    return torch.stack([(told - 1).square().mean() for told in critics(made)]).sum()


def crossing_loss(here: Domain, there: Domain, critics: Critics, done: Crossing, weights: LossWeights) -> Tensor:
    """Reconstruction, both codes found again in the picture that was made, and its credibility in its new domain.

    The content found again is held to the first, and the first to it: gradients pass through both.
    """
    content, style = there.encode(done.made)
    total = weights.reconstruction * functional.l1_loss(done.own, done.real)
    total = total + weights.content * functional.l1_loss(content, done.content)
    total = total + weights.style * functional.l1_loss(style, done.drawn)
    total = total + weights.adversarial * fooling_loss(critics, done.made)
    if weights.cycle:
        total = total + weights.cycle * functional.l1_loss(here.decode(content, done.style), done.real)
    return total


class MunitRun:
    """The state of one training: all of it is in the checkpoint.

    smoothed    the domains' parameters, averaged over the steps of late: what ships
    """

    def __init__(self, config: MunitConfig, training: MunitTraining, *, seed: int, device: torch.device = CPU) -> None:
        torch.manual_seed(seed)
        self.training, self.device, self.seed = training, device, seed
        self.munit = Munit(config).to(device)
        self.critics = CriticPair(config).to(device)
        self.smoothed = Munit(config).to(device).eval().requires_grad_(False)
        self.smoothed.load_state_dict(self.munit.state_dict())
        self.optimisers = {"munit": _adam(self.munit, training), "critics": _adam(self.critics, training)}
        self.step = 0
        self.late_loss = math.nan
        self._same = {"seed": seed, "network": asdict(config), "training": kept_up(training)}

    def fit(self, store: UnpairedStore, checkpoint: Path, report: OnProgress, *, workers: int = 0) -> None:
        """The remaining steps.

        workers  processes that make batches ahead (`batches`)
        raises   ModelError     the loss is no longer a number
        """
        # of a programme, `batches` asks for the number of steps alone
        for batch in batches(store, self.training, first=self.step, workers=workers):
            loss = self._one_step(batch)
            if not math.isfinite(loss):
                raise ModelError(f"the loss is not finite after {self.step} steps")
            self.late_loss = smoothed_loss(self.late_loss, loss)
            self.step += 1
            report("training", self.step, self.training.steps, self.late_loss)
            if self.step % self.training.checkpoint_every == 0 or self.step == self.training.steps:
                self.save(checkpoint)

    def _one_step(self, batch: Unpaired) -> float:
        draws = np.random.SeedSequence((self.seed, self.step)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(draws[0]))
        to_lq, to_hq = cross(self.munit, batch.hq.to(self.device), batch.lq.to(self.device), generator)
        judged = critics_loss(self.critics.hq, to_lq.real, to_hq.made)
        self._descend("critics", judged + critics_loss(self.critics.lq, to_hq.real, to_lq.made))
        self.critics.requires_grad_(False)
        weights, hq, lq = self.training.weights, self.munit.hq, self.munit.lq
        loss = crossing_loss(hq, lq, self.critics.lq, to_lq, weights)
        loss = loss + crossing_loss(lq, hq, self.critics.hq, to_hq, weights)
        self._descend("munit", loss)
        self.critics.requires_grad_(True)
        follow(self.smoothed, self.munit, self.training.ema_decay, step=self.step)
        return float(loss.detach())

    def _descend(self, which: str, loss: Tensor) -> None:
        optimiser = self.optimisers[which]
        for group in optimiser.param_groups:
            group["lr"] = self.training.learning_rate * 0.5 ** (self.step // self.training.halve_every)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        limit = math.inf if self.training.gradient_clip is None else self.training.gradient_clip
        (group,) = optimiser.param_groups
        norm = nn.utils.clip_grad_norm_(group["params"], limit)
        if norm.isfinite():  # of a batch that is nearly flat everywhere it may not be: nothing to learn from
            optimiser.step()

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        write_checkpoint({**self._same, **parts, "step": self.step, "late_loss": self.late_loss}, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        raises   ModelError     it is of another run or network, damaged, or has gone beyond this run's end
        """
        state = read_checkpoint(path)
        hold_to(state, self._same, self.training)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.late_loss = state["step"], state["late_loss"]

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        named = {f"{name}_optimiser": optimiser for name, optimiser in self.optimisers.items()}
        return {"munit": self.munit, "critics": self.critics, "smoothed": self.smoothed, **named}


class Translator:
    """Trained domains, as a degrader of clean pictures.

    styles      of real degraded pictures, float32 (n, style), from which one is drawn; none: from N(0, I), of which a
                short training leaves most far from any real picture's
    """

    def __init__(self, munit: Munit, styles: Tensor | None = None) -> None:
        self.munit, self.styles = munit.eval().requires_grad_(False), styles

    @classmethod
    def read(cls, weights: Path) -> Translator:
        """From what a training left: the weights and, beside them, its facts.

        raises   ModelError     the facts are missing or another stage's, or the weights are those of another network
        """
        told = facts_for(weights, STAGE)
        try:
            munit = Munit(MunitConfig(**told["network"]))
        except (KeyError, TypeError) as error:
            raise ModelError(f"{FACTS} does not tell of the network of a {STAGE}") from error
        fill(munit, weights)
        return cls(munit, torch.tensor(told["styles"]) if told.get("styles") else None)

    @torch.inference_mode()
    def degrade(self, clean: Tensor, style: Tensor | None, draws: torch.Generator) -> Tensor:
        """The degraded copy of clean pictures.

        clean    float32 (B, 1, H, W) in [−1, 1], of any size
        style    (B, style) as `style_of` a degraded picture; None: drawn
        draws    a generator on the CPU
        returns  the same shape
        """
        if style is None:
            style = self._drawn(len(clean), draws)
        content = self.munit.hq.content(_filled(clean, self.munit.config.multiple))
        told = self.munit.lq.decode(content, style.to(clean))
        return told[..., : clean.shape[-2], : clean.shape[-1]].clone()

    def _drawn(self, count: int, draws: torch.Generator) -> Tensor:
        if self.styles is None:
            return torch.randn(count, self.munit.config.style, generator=draws)
        return self.styles[torch.randint(len(self.styles), (count,), generator=draws)]

    @torch.inference_mode()
    def style_of(self, degraded: Tensor) -> Tensor:
        """The style of degraded pictures (B, 1, H, W), a code (B, style)."""
        told: Tensor = self.munit.lq.style(degraded)
        return told.clone()


def train_munit(
    config: MunitConfig,
    store: UnpairedStore,
    out: Path,
    *,
    training: MunitTraining,
    seed: int,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    device: torch.device = CPU,
    workers: int = 0,
) -> Path:
    """Train both domains; the weights' file (fp16 safetensors) is returned, training.json beside it.

    store    pictures of each domain that follow from the number of the step alone
    out      checkpoint and weights go here
    workers  processes that make batches ahead; the weights are the same with any number
    raises   ModelError     the checkpoint is of another run or has more steps; crops too small for the discriminators;
                            a loss not finite
    """
    if training.crop_px < config.least_px or training.crop_px % config.multiple:
        raise ModelError(f"crops must be multiples of {config.multiple} pixels and at least {config.least_px}")
    run = MunitRun(config, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, on_progress or _unseen, workers=workers)
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    facts = {
        "stage": STAGE,
        "seed": seed,
        "torch": torch.__version__,
        "device": device.type,
        "network": asdict(config),
        "late_loss": run.late_loss,
        **asdict(training),
        "styles": [[round(number, 4) for number in style] for style in _styles(run.smoothed, store, training)],
    }
    write_facts(facts, weights)
    return weights


@torch.inference_mode()
def _styles(munit: Munit, store: UnpairedStore, training: MunitTraining) -> list[list[float]]:
    """Of degraded crops, those of the steps after the last."""
    device = next(munit.parameters()).device
    steps = range(training.steps, training.steps + STYLES // training.batch)
    found: list[list[float]] = []
    for step in steps:
        found += munit.lq.style(store.batch(step, training).lq.to(device)).tolist()
    return found


def _unseen(_what: str, _done: int, _total: int, _loss: float) -> None:
    pass


def _adam(network: nn.Module, training: MunitTraining) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        network.parameters(), training.learning_rate, training.betas, weight_decay=training.weight_decay
    )


def _filled(pictures: Tensor, multiple: int) -> Tensor:
    """Mirrored below and to the right until both sides are multiples."""
    height, width = pictures.shape[-2:]
    return functional.pad(pictures, (0, -width % multiple, 0, -height % multiple), mode="reflect")
