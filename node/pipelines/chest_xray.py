"""Chest radiographs: what is offered is done, what is not is said."""

from __future__ import annotations

from models.contract import Analysis, Findings, Radiograph
from node.pipelines.models import Models, Progress

NAME = "chest_xray"
VERSION = "1"


def chest_xray(image: Radiograph, models: Models, on_progress: Progress) -> Findings:  # noqa: ARG001
    """Findings of one radiograph. No network for radiographs has trained weights in this version."""
    on_progress(1, 1)
    reason = "No trained network for it is part of this version."
    return Findings(
        NAME,
        VERSION,
        (Analysis("Restoration", "not done", reason), Analysis("Lesion detection", "not done", reason)),
    )
