"""DeepLesion: lesions mined from PACS bookmarks, categorised and detected (arXiv 1710.01766, PMC6052252)."""
