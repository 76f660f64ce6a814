"""The demonstration's pictures: one image before, after, and the difference, each with its scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from models.contract import FloatArray
from node.dicom.read import read_radiograph, read_volume

SOFT_TISSUE_WINDOW_HU = (-160.0, 240.0)
_NO_BODY_HU = -500.0
_SHOWN_PERCENT = (0.5, 99.5)


def draw(before: Sequence[Path], after: Sequence[Path], to: Path, *, truth: FloatArray | None = None) -> str:
    """The middle slice of a CT series. Returns what the numbers say, in one sentence. raises NotEligible"""
    source, result = read_volume(before), read_volume(after)
    index = len(source.voxels) // 2
    first, second = source.voxels[index], result.voxels[index]
    words = _in_numbers(first, second, truth[index] if truth is not None else None)
    title = f"slice {index + 1} of {len(source.voxels)}. {words}"
    _three_panels((first, second), SOFT_TISSUE_WINDOW_HU, to, done="denoised", unit="HU", title=title)
    return words


def draw_radiograph(before: Path, after: Path, to: Path) -> str:
    """One radiograph. Returns what the numbers say, in one sentence. raises NotEligible"""
    source, result = read_radiograph(before), read_radiograph(after)
    first, second = source.pixels / source.value_step, result.pixels / source.value_step
    low, high = np.percentile(first, _SHOWN_PERCENT)
    change = np.abs(second - first)
    words = f"Change: {change.mean():.1f} grey levels on average, {change.max():.0f} at most."
    shown = float(low), max(float(high), float(low) + 1.0)
    _three_panels((first, second), shown, to, done="restored", unit="grey levels", title=words)
    return words


def _three_panels(
    images: tuple[FloatArray, FloatArray], window: tuple[float, float], to: Path, *, done: str, unit: str, title: str
) -> None:
    first, second = images
    difference = second - first
    figure = Figure(figsize=(17, 5.6), layout="constrained")
    panels = figure.subplots(1, 3)
    limit = max(float(np.percentile(np.abs(difference), 99)), 1.0)
    for axis, image, name, cmap, (least, most) in (
        (panels[0], first, "before: as received", "gray", window),
        (panels[1], second, f"after: AI {done}", "gray", window),
        (panels[2], difference, "difference: after − before", "RdBu_r", (-limit, limit)),
    ):
        shown = axis.imshow(image, cmap=cmap, vmin=least, vmax=most, interpolation="nearest")
        axis.set_title(name)
        axis.set_axis_off()
        figure.colorbar(shown, ax=axis, label=unit, shrink=0.85)
    figure.suptitle(f"{title} Research use, not a medical device.", fontsize=10)
    figure.savefig(to, dpi=110)


def _in_numbers(before: FloatArray, after: FloatArray, truth: FloatArray | None) -> str:
    body = before > _NO_BODY_HU
    if truth is None:
        change = (after - before)[body]
        return f"Change in the body: {change.mean():+.1f} HU on average, standard deviation {change.std():.1f} HU."
    away = [float(np.sqrt(np.mean((image - truth)[body] ** 2))) for image in (before, after)]
    return f"Away from the noise-free phantom, in the body: {away[0]:.1f} HU before, {away[1]:.1f} HU after (RMS)."
