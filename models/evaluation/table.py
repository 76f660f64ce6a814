"""Numbers with their intervals, as a table for readers and as data for programs."""

from __future__ import annotations

import json
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

    def json(self) -> str:
        """The same as JSON: every value with mean, low, high and the number of patients."""
        rows = [
            {
                "condition": row.condition,
                "method": row.method,
                "values": {name: vars(interval) for name, interval in row.values.items()},
            }
            for row in self.rows
        ]
        return json.dumps({"title": self.title, "rows": rows, "notes": list(self.notes)}, indent=1)
