"""ClinReadNet-style image quality of CT slices, after the abstract of arXiv 2606.10372: no more could be read."""
