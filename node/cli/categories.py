"""`train categories`: pseudo-categories of the lesions of a training run's samples, and samples that bear them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from node.cli.learning import in_words, progress_bar
from node.cli.words import say
from node.errors import ConfigurationError


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("categories")(train_categories)


def train_categories(
    data: Path = typer.Option(
        ..., "--data", exists=True, file_okay=False, help="Samples of a training run: train, validation, test."
    ),
    out: Path = typer.Option(..., "--out", file_okay=False, help="What was mined, and the same samples relabelled."),
    weights: Path | None = typer.Option(
        None,
        "--weights",
        exists=True,
        dir_okay=False,
        help="Detector whose backbone the features come from. Without it: a small network from nothing.",
    ),
    clusters: int = typer.Option(5, "--clusters", min=2, help="At the end."),
    first: int = typer.Option(30, "--first-clusters", min=2, help="Of each round, before they are merged."),
    rounds: int = typer.Option(10, "--rounds", min=1, help="At most."),
    side: int = typer.Option(128, "--side", min=32, help="Pixels of a patch; a multiple of 32."),
    seed: int = typer.Option(1, "--seed"),
    by_chance: bool = typer.Option(False, "--by-chance", help="The control: as many of each label, dealt at random."),
) -> None:
    """Mine categories that nobody labelled: cluster, train on the clusters, cluster again until they settle.

    Lesions of validation and test get the nearest cluster; they are never clustered. The samples in OUT/samples train
    a detector of so many categories: pacsnode train deeplesion --out OUT, which then makes no samples of its own.

    \b
    pacsnode train deeplesion --out ./single --single
    pacsnode train categories --data ./single/samples --weights ./single/weights.safetensors --out ./pseudo
    pacsnode train deeplesion --out ./pseudo
    """
    import torch

    from models.deeplesion.mined import MiningConfig, Round, save_mined
    from models.deeplesion.mining import mine, shuffled
    from models.deeplesion.patches import DetectorFeatures, PatchNet, patches_of_samples, relabel, with_lesions
    from models.deeplesion.samples import close
    from models.deeplesion.table import Split
    from node.cli.evaluate_deeplesion import network_of

    files = {split: sorted((data / split.name.lower()).glob("*.npz")) for split in Split}
    if not files[Split.TRAIN]:
        raise ConfigurationError(f"{data}: no samples in train/; pacsnode train deeplesion makes them")
    if side % 32:
        raise ConfigurationError(f"--side {side} is no multiple of 32")
    config = dataclasses.replace(MiningConfig(), clusters=clusters, first_clusters=first, rounds=rounds)
    with in_words(), progress_bar("patches") as progress:

        def tell(one: Round, _: object) -> None:
            progress("rounds", one.number + 1, rounds + 1)
            say(f"round {one.number}: {one.clusters} clusters, agreement with the round before {one.agreement:.3f}")

        patches = patches_of_samples(files[Split.TRAIN], Split.TRAIN, side_px=side)
        torch.manual_seed(seed)
        network = PatchNet(patches.hu.shape[1]) if weights is None else DetectorFeatures(network_of(weights).float())
        mined = mine(network, patches, config, seed=seed, out=out / "mining", on_round=tell)
        save_mined(mined, out / "mining")
        labels = shuffled(mined.labels, seed=seed) if by_chance else mined.labels
        by_name = {name: int(label) for name, label in zip(mined.names, labels, strict=True)}
        for split in (Split.VALIDATION, Split.TEST):
            if lesions := with_lesions(files[split]):
                others = patches_of_samples(lesions, split, side_px=side)
                by_name |= dict(zip(others.names, mined.assign(others).tolist(), strict=True))
        for split, paths in files.items():
            relabel(paths, by_name, out / "samples" / split.name.lower())
        close(out / "samples", clusters)
    say(f"samples: {out / 'samples'}")
