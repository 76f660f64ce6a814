"""DeepLesion: lesions mined from PACS bookmarks, categorised and detected (arXiv 1710.01766, PMC6052252)."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """MODEL, on first use: the lesion table and its images are read without torch."""
    if name != "MODEL":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.deeplesion.model import MODEL

    return MODEL
