"""Training: it finds planted discs within seconds and resumes to the same bits."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.contract import ModelError
from models.deeplesion import boxes as geometry
from models.deeplesion.config import CATEGORIES, DataConfig, DeepLesionConfig, DetectConfig, NetworkConfig, TrainConfig
from models.deeplesion.data import Batch
from models.deeplesion.losses import TargetBatch, Targets
from models.deeplesion.network import Detector, build
from models.deeplesion.samples import close, make_samples
from models.deeplesion.train import Run, for_categories, train
from models.training import learning_rate
from models.weights import save_weights

CPU = torch.device("cpu")
QUICK = TrainConfig(
    steps=6, batch=2, crop_px=64, learning_rate=3e-3, warmup_steps=2, teacher_after=2, checkpoint_every=3
)

FEW = DataConfig(
    cases=2,
    test_cases=0,
    validation_every=2,
    shape_zyx=(5, 72, 72),
    pixels_mm=(4.8, 4.8),
    steps_mm=(5.0,),
    slices_per_case=2,
    lesions_per_case=1,
    views=80,
    noise_slices=1,
)


class Discs:
    """Bright discs of 5 to 10 pixels' radius on noise, one per image."""

    def __init__(self, side: int) -> None:
        self.side = side

    def batch(self, step: int, training: TrainConfig) -> Batch:
        rng = np.random.default_rng((1, step))
        y, x = np.mgrid[: self.side, : self.side] + 0.5
        images, targets = [], []
        for _ in range(training.batch):
            radius, centre = rng.uniform(5, 10), rng.uniform(18, self.side - 18, 2)
            disc = np.hypot(y - centre[0], x - centre[1]) < radius
            hu = rng.normal(-800, 30, (3, self.side, self.side))
            hu[:, disc] = 40
            reach = radius + 5
            box = [centre[1] - reach, centre[0] - reach, centre[1] + reach, centre[0] + reach]
            images.append(hu)
            targets.append(
                Targets(torch.tensor([box], dtype=torch.float32), torch.tensor([0]), torch.from_numpy(disc[None]))
            )
        return Batch(torch.tensor(np.array(images), dtype=torch.float32), TargetBatch.of(targets))


@pytest.fixture
def config(tiny: NetworkConfig) -> DeepLesionConfig:
    return DeepLesionConfig(network=replace(tiny, detect=DetectConfig(before_nms=100, proposals=24)))


def test_it_finds_planted_discs_after_a_few_dozen_steps(config, tmp_path):
    training = replace(QUICK, steps=60, learning_rate=4e-3, warmup_steps=6, ema_decay=0.9, missing="plain")
    discs = Discs(64)
    run = Run(config, training, seed=1, device=CPU)
    run.fit(discs, tmp_path / "c.pt", lambda *_: None)
    unseen = discs.batch(9999, replace(training, batch=12))
    found = run.smoothed.detect(unseen.hu)
    good = 0
    for one, target in zip(found, unseen.targets, strict=True):
        best = one.boxes[:1]
        good += len(best) and one.scores[0] > 0.5 and float(geometry.iou(best, target.boxes)) > 0.5
    assert good >= 10


def test_resumes_to_the_same_bits(config, tmp_path):
    straight = Run(config, QUICK, seed=1, device=CPU)
    straight.fit(Discs(64), tmp_path / "a.pt", lambda *_: None)

    class Stopped(Exception):
        pass

    def stop_at_5(_what: str, done: int, _total: int, _loss: float) -> None:
        if done == 5:
            raise Stopped

    broken = Run(config, QUICK, seed=1, device=CPU)
    with pytest.raises(Stopped):
        broken.fit(Discs(64), tmp_path / "b.pt", stop_at_5)
    torch.manual_seed(99)  # nothing may hang on torch's own generator
    resumed = Run(config, QUICK, seed=1, device=CPU)
    resumed.load(tmp_path / "b.pt")
    assert resumed.step == 3
    torch.manual_seed(98)
    resumed.fit(Discs(64), tmp_path / "b.pt", lambda *_: None)
    for one, other in ((straight.network, resumed.network), (straight.smoothed, resumed.smoothed)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert straight.late_loss == resumed.late_loss


def test_refuses_the_checkpoint_of_another_seed_or_network(config, tmp_path):
    Run(config, QUICK, seed=1, device=CPU).save(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="another seed"):
        Run(config, QUICK, seed=2, device=CPU).load(tmp_path / "c.pt")
    other = replace(config, network=replace(config.network, fpn_channels=24))
    with pytest.raises(ModelError, match="another network"):
        Run(other, QUICK, seed=1, device=CPU).load(tmp_path / "c.pt")


def test_goes_on_from_weights_of_another_training(config, tmp_path):
    first = Run(config, QUICK, seed=1, device=CPU)
    first.fit(Discs(64), tmp_path / "c.pt", lambda *_: None)
    save_weights(first.smoothed, tmp_path / "weights.safetensors")
    second = Run(config, QUICK, seed=2, device=CPU)
    second.start_from(tmp_path / "weights.safetensors")
    assert second.step == 0
    for network in (second.network, second.smoothed):
        for name, tensor in first.smoothed.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=2e-3, atol=1e-4)  # fp16
    other = replace(config, network=replace(config.network, fpn_channels=24))
    with pytest.raises(ModelError, match="another network"):
        Run(other, QUICK, seed=1, device=CPU).start_from(tmp_path / "weights.safetensors")


def with_classes(config: DeepLesionConfig, count: int) -> DeepLesionConfig:
    names = tuple(f"category {number}" for number in range(count))
    return replace(config, network=replace(config.network, categories=names))


def started(config: DeepLesionConfig, count: int, weights: Path) -> Run:
    run = Run(with_classes(config, count), QUICK, seed=2, device=CPU)
    run.start_from(weights)
    return run


def class_probabilities(network: Detector) -> torch.Tensor:
    """Of 12 regions, (12, 1 + categories)."""
    hu = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 300
    corners = torch.arange(12.0)[:, None].repeat(1, 2) * 3
    rois = geometry.with_image([torch.cat([corners, corners + 25], 1)])
    with torch.no_grad():
        return network.classify(network.features(hu), rois)[0].softmax(1)


def test_weights_of_one_category_start_several_that_are_all_as_likely(config, tmp_path):
    torch.manual_seed(0)
    single = build(with_classes(config, 1).network)
    torch.nn.init.normal_(single.roi_head.scores.weight)
    torch.nn.init.normal_(single.roi_head.scores.bias)
    save_weights(single, tmp_path / "single.safetensors")
    before = class_probabilities(started(config, 1, tmp_path / "single.safetensors").network)
    assert before[:, 0].std() > 1e-3
    run = started(config, 5, tmp_path / "single.safetensors")
    for network in (run.network, run.smoothed):
        now = class_probabilities(network)
        assert now.shape == (12, 6)
        torch.testing.assert_close(now[:, 0], before[:, 0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(now[:, 1:], before[:, 1:].expand(12, 5) / 5, rtol=1e-5, atol=1e-7)
        for name, tensor in single.state_dict().items():
            if not name.startswith("roi_head.scores"):
                torch.testing.assert_close(network.state_dict()[name], tensor, rtol=2e-3, atol=1e-4)  # fp16


def test_weights_of_several_categories_start_one_from_their_mean(config, tmp_path):
    known = {
        "roi_head.scores.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]]),
        "roi_head.scores.bias": torch.tensor([0.5, 1.0, 2.0]),
        "roi_head.deltas.bias": torch.zeros(4),
    }
    one = for_categories(known, 1)
    assert one["roi_head.scores.weight"].tolist() == [[1, 2], [4, 6]]
    assert one["roi_head.scores.bias"].tolist() == pytest.approx([0.5, 1.5 + math.log(2)])
    assert one["roi_head.deltas.bias"] is known["roi_head.deltas.bias"]
    save_weights(build(with_classes(config, 5).network), tmp_path / "five.safetensors")
    assert class_probabilities(started(config, 1, tmp_path / "five.safetensors").network).shape == (12, 2)


def test_other_shapes_are_of_another_network_whatever_their_categories(config, tmp_path):
    wider = with_classes(replace(config, network=replace(config.network, head_widths=(16, 48))), 1)
    save_weights(build(wider.network), tmp_path / "wider.safetensors")
    save_file({"roi_head.scores.bias": torch.zeros(1)}, tmp_path / "part.safetensors")
    for file in ("wider", "part"):
        with pytest.raises(ModelError, match="another network"):
            started(config, 5, tmp_path / f"{file}.safetensors")


def test_the_teacher_follows_and_does_not_learn(config, tmp_path):
    run = Run(config, QUICK, seed=1, device=CPU)
    run.fit(Discs(64), tmp_path / "c.pt", lambda *_: None)
    assert not any(parameter.requires_grad for parameter in run.smoothed.parameters())
    between = False
    for average, now in zip(run.smoothed.parameters(), run.network.parameters(), strict=True):
        between |= not torch.equal(average, now)
    assert between


def test_the_teacher_is_asked_about_incomplete_images_only(config, tmp_path):
    run = Run(config, replace(QUICK, teacher_after=0, teacher_score=0.0), seed=1, device=CPU)
    batch = Discs(64).batch(0, replace(QUICK, batch=3))
    assert set(run._spared(batch.hu, batch.targets, None)) == {0, 1, 2}
    assert set(run._spared(batch.hu, batch.targets, [1])) == {1}
    assert run._spared(batch.hu, batch.targets, []) == {}
    plain = Run(config, replace(QUICK, teacher_after=0, missing="plain"), seed=1, device=CPU)
    assert plain._spared(batch.hu, batch.targets, None) == {}
    early = Run(config, replace(QUICK, teacher_after=5), seed=1, device=CPU)
    assert early._spared(batch.hu, batch.targets, None) == {}


def test_the_rate_warms_up_and_falls_to_its_end():
    training = TrainConfig(steps=110, batch=1, crop_px=64, learning_rate=1.0, last_learning_rate=0.1, warmup_steps=10)
    assert learning_rate(0, training) == pytest.approx(0.1)
    assert learning_rate(9, training) == pytest.approx(1.0)
    assert learning_rate(60, training) == pytest.approx(0.55)
    assert learning_rate(110, training) == pytest.approx(0.1)


def test_trains_from_nothing_to_calibrated_weights(config, tmp_path):
    """Drawn cases to samples, steps, validation and a file that a fresh network takes."""
    network = replace(config.network, categories=CATEGORIES)
    seen: list[str] = []
    weights = train(
        replace(config, network=network, data=FEW),
        tmp_path,
        preset="cpu",
        seed=1,
        training=replace(QUICK, steps=3),
        on_progress=lambda what, *_: seen.append(what),
    )
    assert set(seen) == {"samples", "training", "validation"}
    tensors = load_file(weights)
    measured = json.loads((tmp_path / "validation.json").read_text())
    assert measured["cases"] == 2
    assert tensors["calibration"].tolist() == pytest.approx(measured["calibration"])
    assert 0 < float(tensors["operating_point"]) <= 1
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["samples"]["train"]["anthropomorphic-chest"] == {"patients": 1, "samples": 2}
    assert (facts["seed"], facts["steps"], facts["validation"]) == (1, 3, measured)
    build(network).load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def test_samples_with_categories_of_their_own_stay_among_themselves(config, tmp_path):
    """No drawn case, whose categories are others, comes to those that were mined."""
    folder = tmp_path / "samples"
    five = with_classes(config, 5)
    only = replace(five, data=replace(FEW, cases=1))
    made = make_samples(folder, only, seed=3)
    close(folder, 5)
    training = replace(QUICK, steps=1)
    train(replace(five, data=FEW), tmp_path, preset="cpu", seed=3, training=training)
    assert sorted(folder.rglob("*.npz")) == sorted(made)
    for network, volumes, said in ((config, (), "5 categories"), (five, [made[0]], "be added")):
        with pytest.raises(ModelError, match=said):
            train(network, tmp_path, preset="cpu", seed=3, training=training, volumes=volumes)


def test_samples_made_side_by_side_are_the_same(config, tmp_path):
    data = replace(FEW, shape_zyx=(3, 72, 72), slices_per_case=1)
    told: list[tuple[int, int]] = []
    ours = make_samples(tmp_path / "one", replace(config, data=data), seed=3)
    theirs = make_samples(
        tmp_path / "two", replace(config, data=data), seed=3, workers=2, on_progress=lambda *at: told.append(at)
    )
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert told == [(done, 4) for done in range(5)]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(ours, theirs, strict=True))
