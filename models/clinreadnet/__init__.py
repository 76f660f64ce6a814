"""ClinReadNet-style image quality of CT slices, after the abstract of arXiv 2606.10372: no more could be read."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """MODEL, on first use: the public rated set is read without torch."""
    if name != "MODEL":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.clinreadnet.model import MODEL

    return MODEL
