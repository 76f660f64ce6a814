"""A table as a picture: one panel per measure, a point with its 95 % interval per row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.evaluation.table import Table

ROW_INCHES, PANEL_INCHES, LABEL_INCHES = 0.24, 2.2, 3.2


def draw_intervals(table: Table, to: Path) -> None:
    """Written as PNG; what could not be measured has no point. A line marks 0."""
    from matplotlib.figure import Figure

    measures = list(table.rows[0].values)
    size = (LABEL_INCHES + PANEL_INCHES * len(measures), 1 + ROW_INCHES * len(table.rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for panel, measure in zip(panels, measures, strict=True):
        panel.axvline(0, color="0.7", linewidth=0.8)
        for place, row in enumerate(table.rows):
            value = row.values[measure]
            if math.isfinite(value.mean):
                panel.plot((value.low, value.high), (place, place), color="0.3", linewidth=1.2)
                panel.plot(value.mean, place, "o", color="C0", markersize=4)
        panel.set_title(measure, fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].set_yticks(range(len(table.rows)), [f"{row.condition}: {row.method}" for row in table.rows])
    panels[0].set_ylim(len(table.rows) - 0.5, -0.5)
    figure.savefig(to, dpi=110)
