"""Restoration of radiographs by diffusion, after DiffusionXRay (arXiv 2603.01686): degraders, restorer, bounds."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """MODEL, on first use: what a radiograph must be to be restored is asked without torch."""
    if name != "MODEL":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.diffusionxray.model import MODEL

    return MODEL
