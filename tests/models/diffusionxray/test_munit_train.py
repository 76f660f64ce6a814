"""Training of the translator on two small domains: discs as they are, and other discs, blurred, grey and noisy."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import center_of_mass
from torch import nn
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.munit import HALF, Critics, Munit, MunitConfig
from models.diffusionxray.munit_train import (
    CPU_TRAINING,
    GPU_TRAINING,
    STYLES,
    LossWeights,
    MunitRun,
    MunitTraining,
    Translator,
    critics_loss,
    cross,
    crossing_loss,
    fooling_loss,
    train_munit,
)

SMALL = MunitConfig(blocks=1, mlp=16, critic_layers=2, scales=2)
QUICK = MunitTraining(steps=6, batch=2, crop_px=16, checkpoint_every=3, learning_rate=1e-3)


@dataclass(frozen=True)
class Two:
    hq: torch.Tensor
    lq: torch.Tensor


def discs(step: int, training: MunitTraining, domain: int) -> torch.Tensor:
    rng = np.random.default_rng((domain, step))
    at, side = np.arange(training.crop_px), training.crop_px
    y, x, radius = rng.uniform((side / 4, side / 4, 2), (side * 0.75, side * 0.75, side / 4), (training.batch, 3)).T[
        :, :, None, None
    ]
    return torch.from_numpy(np.hypot(at[:, None] - y, at - x) < radius).float()[:, None] - 0.5


class Domains:
    def batch(self, step: int, training: MunitTraining) -> Two:
        degraded = functional.avg_pool2d(discs(step, training, 2), 3, 1, 1, count_include_pad=False)
        noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(step))
        return Two(discs(step, training, 1), 0.5 * degraded + 0.3 + 0.03 * noise)


def fitted(run, tmp_path, report=lambda *_: None):
    run.fit(Domains(), tmp_path / "c.pt", report)
    return run


UNSEEN = Domains().batch(9999, replace(QUICK, batch=16))


@pytest.fixture(scope="module")
def untrained() -> Munit:
    return MunitRun(SMALL, QUICK, seed=1).smoothed


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Munit:
    torch.set_num_threads(1)
    training = replace(QUICK, steps=80, batch=4, learning_rate=2e-3, ema_decay=0.9)
    return fitted(MunitRun(SMALL, training, seed=1), tmp_path_factory.mktemp("munit")).smoothed


def translated(munit: Munit, seed: int) -> torch.Tensor:
    return Translator(munit).degrade(UNSEEN.hq, None, torch.Generator().manual_seed(seed))


def centres(pictures: torch.Tensor) -> np.ndarray:
    """Of what is brightest in each, (n, 2)."""
    levels = pictures[:, 0].double().numpy()
    lit = levels - np.median(levels, (1, 2), keepdims=True)
    return np.array([center_of_mass((one - 0.5 * one.max()).clip(0)) for one in lit])


def moved_px(munit: Munit) -> np.ndarray:
    before = centres(UNSEEN.hq)
    return np.concatenate([np.hypot(*(centres(translated(munit, seed)) - before).T) for seed in range(3)])


def test_the_reconstruction_is_learned_and_the_translation_looks_like_its_domain(untrained, trained):
    def error(munit: Munit) -> float:
        with torch.inference_mode():
            return sum(
                float((domain.decode(*domain.encode(pictures)) - pictures).abs().mean())
                for domain, pictures in ((munit.hq, UNSEEN.hq), (munit.lq, UNSEEN.lq))
            )

    assert error(trained) < 0.4 * error(untrained)
    assert float(translated(trained, 3).mean()) == pytest.approx(float(UNSEEN.lq.mean()), abs=0.15)
    assert float(UNSEEN.hq.mean()) < float(UNSEEN.lq.mean()) - 0.3


def test_what_is_there_stays_where_it_is_within_a_pixel(untrained, trained):
    assert np.quantile(moved_px(trained), 0.9) < 1
    assert np.quantile(moved_px(untrained), 0.9) > 2


def test_other_styles_look_different_and_show_the_same(trained):
    one, other = (translated(trained, seed) for seed in (1, 2))
    assert float((one - other).abs().mean()) > 0.005
    assert np.quantile(np.hypot(*(centres(one) - centres(other)).T), 0.9) < 1


def test_resumes_to_the_same_bits(tmp_path):
    straight = MunitRun(SMALL, QUICK, seed=1)
    straight.fit(Domains(), tmp_path / "a.pt", lambda *_: None)

    class Stopped(Exception):
        pass

    def stop_at_5(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        MunitRun(SMALL, QUICK, seed=1).fit(Domains(), tmp_path / "b.pt", stop_at_5)
    torch.manual_seed(98)  # nothing may hang on torch's own generator
    resumed = MunitRun(SMALL, QUICK, seed=1)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 3
    torch.manual_seed(99)
    resumed.fit(Domains(), tmp_path / "b.pt", lambda *_: None)
    for part in ("munit", "smoothed", "critics"):
        other = getattr(resumed, part).state_dict()
        for name, tensor in getattr(straight, part).state_dict().items():
            assert torch.equal(tensor, other[name]), name
    assert straight.late_loss == resumed.late_loss


def test_batches_that_workers_made_ahead_give_the_same_weights(tmp_path):
    """A run taken up again too: they begin where it was."""
    alone, helped = (MunitRun(SMALL, QUICK, seed=1) for _ in range(2))
    fitted(alone, tmp_path / "alone")
    first = MunitRun(SMALL, replace(QUICK, steps=3), seed=1)
    first.fit(Domains(), tmp_path / "c.pt", lambda *_: None, workers=1)
    helped.load(tmp_path / "c.pt")
    helped.fit(Domains(), tmp_path / "c.pt", lambda *_: None, workers=2)
    for one, other in zip(alone.munit.parameters(), helped.munit.parameters(), strict=True):
        assert torch.equal(one, other)


def test_each_preset_has_crops_that_its_networks_take():
    for config, training in ((MunitConfig(), CPU_TRAINING), (HALF, GPU_TRAINING)):
        assert training.crop_px >= config.least_px
        assert training.crop_px % config.multiple == 0


def test_another_seed_makes_other_weights(tmp_path):
    one, other = (fitted(MunitRun(SMALL, replace(QUICK, steps=1), seed=seed), tmp_path) for seed in (1, 2))
    assert not torch.equal(one.munit.hq.decoder.head.weight, other.munit.hq.decoder.head.weight)


def test_refuses_the_checkpoint_of_another_run(tmp_path):
    MunitRun(SMALL, QUICK, seed=1).save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another seed"):
        MunitRun(SMALL, QUICK, seed=2).load(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another network"):
        MunitRun(replace(SMALL, mlp=32), QUICK, seed=1).load(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another training"):
        MunitRun(SMALL, replace(QUICK, weights=LossWeights(cycle=10)), seed=1).load(tmp_path / "c.pt")
    MunitRun(SMALL, replace(QUICK, steps=9), seed=1).load(tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"c\.pt is no checkpoint, or damaged"):
        MunitRun(SMALL, QUICK, seed=1).load(tmp_path / "c.pt")


class Says(nn.Module):
    """A discriminator of one scale for which a picture is as real as its mean is bright."""

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures.mean((2, 3), keepdim=True), pictures[:, :, :1, :1]]


def test_the_discriminators_loss_is_least_squares_added_over_scales():
    real, made = torch.full((2, 1, 8, 8), 0.75), torch.full((2, 1, 8, 8), 0.5)
    assert float(critics_loss(Says(), real, made)) == pytest.approx(2 * (0.25**2 + 0.5**2))
    assert float(critics_loss(Says(), torch.ones_like(real), torch.zeros_like(made))) == 0
    assert float(fooling_loss(Says(), made)) == pytest.approx(2 * 0.5**2)
    assert float(fooling_loss(Says(), torch.ones_like(made))) == 0


def test_the_discriminators_are_not_taught_through_the_pictures_that_were_made():
    made = torch.zeros(1, 1, 16, 16, requires_grad=True)
    critics = Critics(SMALL)
    critics_loss(critics, torch.ones(1, 1, 16, 16), made).backward()
    assert made.grad is None
    fooling_loss(critics, made).backward()
    assert float(made.grad.abs().sum()) > 0


class Same(nn.Module):
    """A domain whose content is the picture, whose style is its mean, and which decodes content alone."""

    def encode(self, pictures):
        return pictures, pictures.mean((2, 3)).expand(-1, SMALL.style)

    def decode(self, content, style):
        return content + 0 * style.sum()


def test_each_part_of_the_loss_counts_by_its_weight():
    munit = nn.Module()
    munit.hq, munit.lq, munit.config = Same(), Same(), SMALL
    unseen = Domains().batch(1, QUICK)
    to_lq, _ = cross(munit, unseen.hq, unseen.lq, torch.Generator().manual_seed(1))
    off = replace(to_lq, own=to_lq.own + 0.25, content=to_lq.content + 0.5)
    style = float((unseen.hq.mean((2, 3)) - to_lq.drawn).abs().mean())

    def loss(**told):
        weights = LossWeights(**{"reconstruction": 0, "content": 0, "style": 0, "adversarial": 0} | told)
        return float(crossing_loss(munit.hq, munit.lq, Says(), off, weights))

    fooled = float(fooling_loss(Says(), unseen.hq))
    assert loss(reconstruction=10) == pytest.approx(2.5)
    assert loss(content=3) == pytest.approx(1.5)
    assert loss(style=2) == pytest.approx(2 * style)
    assert loss(adversarial=1) == pytest.approx(fooled)
    assert loss(cycle=10) == pytest.approx(0)
    assert LossWeights() == LossWeights(10, 1, 1, 1, 0)
    assert loss(reconstruction=10, content=1, style=1, adversarial=1) == pytest.approx(3 + style + fooled)


def test_the_cycle_is_asked_to_give_the_picture_back():
    torch.manual_seed(0)
    munit, critics, unseen = Munit(SMALL), Critics(SMALL), Domains().batch(1, QUICK)
    with torch.inference_mode():
        to_lq, _ = cross(munit, unseen.hq, unseen.lq, torch.Generator().manual_seed(1))
        plain, cycled = (
            float(crossing_loss(munit.hq, munit.lq, critics, to_lq, LossWeights(cycle=cycle))) for cycle in (0.0, 10.0)
        )
        back = munit.hq.decode(munit.lq.content(to_lq.made), to_lq.style)
    assert cycled - plain == pytest.approx(10 * float((back - unseen.hq).abs().mean()), rel=1e-4)


def test_both_domains_are_crossed_each_in_a_style_of_its_own():
    torch.manual_seed(0)
    munit, unseen = Munit(SMALL), Domains().batch(1, QUICK)
    with torch.inference_mode():
        to_lq, to_hq = cross(munit, unseen.hq, unseen.lq, torch.Generator().manual_seed(1))
        for crossing, here, there, real in (
            (to_lq, munit.hq, munit.lq, unseen.hq),
            (to_hq, munit.lq, munit.hq, unseen.lq),
        ):
            content, style = here.encode(real)
            assert torch.equal(crossing.real, real)
            torch.testing.assert_close(crossing.own, here.decode(content, style))
            torch.testing.assert_close(crossing.made, there.decode(content, crossing.drawn))
    assert not torch.equal(to_lq.drawn, to_hq.drawn)


def test_a_step_moves_discriminators_and_domains_and_leaves_both_able_to_learn():
    run = MunitRun(SMALL, QUICK, seed=1)
    before = {name: tensor.clone() for name, tensor in (*run.munit.named_parameters(), *run.critics.named_parameters())}
    run._one_step(Domains().batch(0, QUICK))
    for part in (run.munit, run.critics):
        for name, tensor in part.named_parameters():
            assert tensor.requires_grad, name
        moved = [not torch.equal(tensor, before[name]) for name, tensor in part.named_parameters()]
        assert all(moved)


def test_the_learning_rate_is_halved_again_and_again():
    run = MunitRun(SMALL, replace(QUICK, halve_every=2), seed=1)
    rates = []
    for step in range(5):
        run.step = step
        run._one_step(Domains().batch(step, QUICK))
        rates.append({group["lr"] for one in run.optimisers.values() for group in one.param_groups})
    assert rates == [{1e-3}, {1e-3}, {5e-4}, {5e-4}, {2.5e-4}]
    for optimiser in run.optimisers.values():
        assert optimiser.defaults["betas"] == (0.5, 0.999)
        assert optimiser.defaults["weight_decay"] == 1e-4


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    class Broken(Domains):
        def batch(self, step, training):
            batch = super().batch(step, training)
            return replace(batch, hq=batch.hq * (torch.nan if step == 2 else 1))

    with pytest.raises(ModelError, match="not finite after 2 steps"):
        MunitRun(SMALL, QUICK, seed=1).fit(Broken(), tmp_path / "c.pt", lambda *_: None)
    assert not (tmp_path / "c.pt").exists()


def test_a_gradient_that_is_no_number_teaches_nothing_and_ends_nothing():
    """Nearly flat crops: the loss is a number, its gradient through the normalisation is not."""
    run = MunitRun(SMALL, replace(QUICK, gradient_clip=5.0), seed=1)
    before = {name: tensor.clone() for name, tensor in run.munit.state_dict().items()}
    steep = run.munit.hq.content[0][0].weight.register_hook(lambda gradient: gradient * torch.inf)
    run._one_step(Domains().batch(0, QUICK))
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.munit.state_dict().items())
    steep.remove()
    run._one_step(Domains().batch(0, QUICK))
    assert not torch.equal(run.munit.hq.content[0][0].weight, before["hq.content.0.0.weight"])
    assert all(tensor.isfinite().all() for tensor in run.munit.state_dict().values())


def test_trains_to_weights_that_the_translator_reads(tmp_path):
    seen = []
    weights = train_munit(
        SMALL, Domains(), tmp_path, training=QUICK, seed=3, on_progress=lambda *told: seen.append(told[1:3])
    )  # fmt: skip
    assert seen[-1] == (6, 6)
    facts = json.loads((tmp_path / "training.json").read_text())
    assert (facts["stage"], facts["seed"], facts["network"]["blocks"]) == ("munit", 3, 1)
    assert facts["weights"]["reconstruction"] == 10
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    translator = Translator.read(weights)
    run = MunitRun(SMALL, QUICK, seed=3)
    run.load(tmp_path / "checkpoint.pt")
    assert translator.styles.shape == (STYLES, 8)
    with torch.inference_mode():
        own = run.smoothed.lq.style(Domains().batch(6, QUICK).lq)
    torch.testing.assert_close(translator.styles[:2], own, rtol=0, atol=1e-4)
    style = torch.zeros(2, 8)
    clean = Domains().batch(5, QUICK).hq
    one, other = (each.degrade(clean, style, torch.Generator()) for each in (translator, Translator(run.smoothed)))
    torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    with torch.inference_mode():
        content = run.smoothed.hq.content(clean)
        torch.testing.assert_close(other, run.smoothed.lq.decode(content, style))


def test_weights_that_do_not_fit_their_facts_are_refused(tmp_path):
    weights = train_munit(SMALL, Domains(), tmp_path, training=replace(QUICK, steps=1), seed=3)
    facts = json.loads((tmp_path / "training.json").read_text())
    facts["network"]["blocks"] = 2
    (tmp_path / "training.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="not the weights of this network"):
        Translator.read(weights)
    (tmp_path / "training.json").write_text(json.dumps(facts | {"stage": "prior"}))
    with pytest.raises(ModelError, match="a munit is wanted"):
        Translator.read(weights)
    (tmp_path / "training.json").write_text(json.dumps(facts | {"network": {"colour": 1}}))
    with pytest.raises(ModelError, match="does not tell of the network"):
        Translator.read(weights)
    (tmp_path / "training.json").unlink()
    with pytest.raises(ModelError, match=r"no training\.json"):
        Translator.read(weights)


def test_crops_that_the_discriminators_cannot_take_are_refused(tmp_path):
    for crop_px in (4, 18):
        with pytest.raises(ModelError, match="crops must be multiples of 4 pixels and at least 8"):
            train_munit(SMALL, Domains(), tmp_path, training=replace(QUICK, crop_px=crop_px), seed=3)


def test_the_same_draws_make_the_same_picture_of_any_size():
    torch.manual_seed(0)
    translator = Translator(Munit(SMALL))
    clean = torch.randn(2, 1, 21, 30, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    one, same, other = (translator.degrade(clean, None, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert one.shape == clean.shape
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_styles_that_were_kept_are_those_that_are_drawn():
    torch.manual_seed(0)
    styles = torch.randn(3, 8)
    translator = Translator(Munit(SMALL), styles)
    clean = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    drawn = translator.degrade(clean, None, torch.Generator().manual_seed(5))
    told = torch.stack([translator.degrade(clean, style.expand(8, -1), torch.Generator()) for style in styles])
    which = (told - drawn).abs().amax((2, 3, 4)).argmin(0)
    assert len(set(which.tolist())) > 1
    torch.testing.assert_close(torch.stack([told[style, place] for place, style in enumerate(which)]), drawn)


def test_a_picture_can_lend_its_style():
    torch.manual_seed(0)
    translator, two = Translator(Munit(SMALL)), Domains().batch(4, QUICK)
    style = translator.style_of(two.lq)
    assert style.shape == (2, 8)
    content = translator.munit.hq.content(two.hq)
    expected = translator.munit.lq.decode(content, style)
    torch.testing.assert_close(translator.degrade(two.hq, style, torch.Generator()), expected)
