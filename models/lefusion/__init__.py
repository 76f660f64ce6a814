"""Lesions for training and acceptance tests, after LeFusion (arXiv 2403.14066): texture in a given mask, and masks.

It makes data and analyses none, so the catalogue of the node does not offer it.
"""
