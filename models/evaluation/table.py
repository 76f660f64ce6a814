"""Numbers with their intervals, as a table for readers and as data for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Row:
    """One method under one condition: metric → value."""

    condition: str
    method: str
    values: Mapping[str, Interval]


@dataclass(frozen=True)
class Table:
    """Rows with the same metrics, and what a reader must know of them."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def markdown(self) -> str:
        """Title, table, notes."""
        metrics = list(self.rows[0].values) if self.rows else []
        lines = [f"### {self.title}", "", "| " + " | ".join(["condition", "method", *metrics]) + " |"]
        lines.append("|" + "---|" * (len(metrics) + 2))
        for row in self.rows:
            cells = [str(row.values[metric]) for metric in metrics]
            lines.append("| " + " | ".join([row.condition, row.method, *cells]) + " |")
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def data(self) -> dict[str, object]:
        """The same for programs: every value with mean, low, high and the number of patients, 4 digits."""
        rows = [
            {
                "condition": row.condition,
                "method": row.method,
                "values": {name: _rounded(interval) for name, interval in row.values.items()},
            }
            for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


@dataclass(frozen=True)
class Measured:
    """What is known of a set of weights: what they were made of, and every table of one evaluation.

    weights_sha256  whose numbers these are     training    facts as the training wrote them beside its weights
    """

    weights_sha256: str
    training: Mapping[str, object]
    tables: tuple[Table, ...]

    def markdown(self) -> str:
        """All tables."""
        return "\n".join(table.markdown() for table in self.tables)

    def json(self) -> str:
        """All of it; `models.weights.read_card` reads it beside a card."""
        content = {
            "weights_sha256": self.weights_sha256,
            "training": self.training,
            "tables": [table.data() for table in self.tables],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _rounded(interval: Interval) -> dict[str, float | int | None]:
    """JSON knows neither NaN nor infinity: what could not be measured is null."""
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    shown = {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}
    return {**shown, "patients": interval.patients}
