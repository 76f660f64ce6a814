"""Training: it learns, it resumes to the same weights, and it tells what it was."""

import json
from dataclasses import replace

import pytest
import torch

from models.contract import ModelError
from models.lefusion.config import TrainConfig
from models.lefusion.data import CropStore, ShapeStore
from models.lefusion.train import LesionRun, network_for, read_trained, train
from seeded.lesion_crops import region

QUICK = TrainConfig(steps=6, batch=2, crop_zyx=(4, 8, 8), warmup_steps=2, checkpoint_every=3, learning_rate=3e-3)


def store(classes=1):
    return CropStore([region(core_radius=2), region(seed=1)], classes=classes, seed=1)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_training_that_was_interrupted_makes_the_same_weights(tiny, tmp_path):
    whole = train(tiny, "texture", store(), tmp_path / "whole", training=QUICK, seed=1)
    run = LesionRun(tiny, "texture", QUICK, seed=1)

    class Enough(Exception):
        pass

    def stop(_what, done, _total, _loss):
        if done == 4:
            raise Enough

    with pytest.raises(Enough):
        run.fit(store(), tmp_path / "parts" / "checkpoint.pt", stop)
    parts = train(tiny, "texture", store(), tmp_path / "parts", training=QUICK, seed=1)
    assert whole.read_bytes() == parts.read_bytes()


def test_a_checkpoint_of_another_stage_or_loss_is_refused(tiny, tmp_path):
    train(tiny, "texture", store(), tmp_path, training=QUICK, seed=1)
    with pytest.raises(ModelError, match="another focus"):
        train(tiny, "texture", store(), tmp_path, training=replace(QUICK, focus="crop"), seed=1)
    with pytest.raises(ModelError, match="another stage"):
        train(replace(tiny, inputs=2, condition=0), "mask", ShapeStore(seed=1), tmp_path, training=QUICK, seed=1)


def test_it_learns_the_noise_in_lesions(tiny, tmp_path):
    longer = replace(QUICK, steps=40, crop_zyx=(8, 8, 8))
    run = LesionRun(tiny, "texture", longer, seed=1)
    batch = store().batch(1000, replace(longer, batch=8))
    before = run.loss(batch).item()
    run.fit(store(), tmp_path / "checkpoint.pt", lambda *_: None)
    run.step = 0
    assert run.loss(batch).item() < 0.9 * before


def test_what_was_trained_is_read_again_with_its_facts(tiny, tmp_path):
    train(tiny, "texture", store(), tmp_path, training=QUICK, seed=1, facts={"classes": 1})
    found = read_trained(tmp_path, "texture")
    facts = json.loads((tmp_path / "training.json").read_text(encoding="utf8"))
    assert facts["focus"] == "lesion"
    assert found.facts["classes"] == 1
    assert found.network.config == tiny
    assert same(found.network, read_trained(tmp_path, "texture").network)
    with pytest.raises(ModelError, match="another stage"):
        read_trained(tmp_path, "mask")
    with pytest.raises(ModelError, match="no trained mask"):
        read_trained(tmp_path / "none", "mask")


def test_a_joint_network_is_trained_on_a_mask_per_class(tmp_path):
    config = network_for("texture", "cpu", classes=2)
    assert (config.inputs, config.outputs, config.condition) == (2, 2, 32)
    small = replace(config, width=16, mults=(1, 2), heads=2, head_width=8, through=(1,))
    train(small, "texture", store(2), tmp_path, training=QUICK, seed=1)


def test_shapes_are_learnt_from_spheres_alone(tiny, tmp_path):
    config = replace(tiny, inputs=2, condition=0)
    training = replace(QUICK, steps=2, crop_zyx=(16, 16, 16), focus="everywhere")
    train(config, "mask", ShapeStore(seed=1), tmp_path, training=training, seed=1)
    assert read_trained(tmp_path, "mask").network.config.inputs == 2
