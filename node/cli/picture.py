"""The demonstration's picture: one slice before, after, and the difference, each with its scale in HU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from models.contract import FloatArray
from node.dicom.read import read_volume

SOFT_TISSUE_WINDOW_HU = (-160.0, 240.0)
_NO_BODY_HU = -500.0


def draw(before: Sequence[Path], after: Sequence[Path], to: Path, *, truth: FloatArray | None = None) -> str:
    """The middle slice. Returns what the numbers say, in one sentence. raises NotEligible"""
    source, result = read_volume(before), read_volume(after)
    index = len(source.voxels) // 2
    first, second = source.voxels[index], result.voxels[index]
    difference = second - first
    figure = Figure(figsize=(17, 5.6), layout="constrained")
    panels = figure.subplots(1, 3)
    limit = max(float(np.percentile(np.abs(difference), 99)), 1.0)
    low, high = SOFT_TISSUE_WINDOW_HU
    for axis, image, title, cmap, (least, most) in (
        (panels[0], first, "before: as received", "gray", (low, high)),
        (panels[1], second, "after: AI denoised", "gray", (low, high)),
        (panels[2], difference, "difference: after − before", "RdBu_r", (-limit, limit)),
    ):
        shown = axis.imshow(image, cmap=cmap, vmin=least, vmax=most, interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
        figure.colorbar(shown, ax=axis, label="HU", shrink=0.85)
    words = _in_numbers(first, second, truth[index] if truth is not None else None)
    figure.suptitle(
        f"slice {index + 1} of {len(source.voxels)}. {words} Research use, not a medical device.", fontsize=10
    )
    figure.savefig(to, dpi=110)
    return words


def _in_numbers(before: FloatArray, after: FloatArray, truth: FloatArray | None) -> str:
    body = before > _NO_BODY_HU
    if truth is None:
        change = (after - before)[body]
        return f"Change in the body: {change.mean():+.1f} HU on average, standard deviation {change.std():.1f} HU."
    away = [float(np.sqrt(np.mean((image - truth)[body] ** 2))) for image in (before, after)]
    return f"Away from the noise-free phantom, in the body: {away[0]:.1f} HU before, {away[1]:.1f} HU after (RMS)."
