"""Restoration of radiographs by diffusion, after DiffusionXRay (arXiv 2603.01686): stage 2, and the bounds on it."""
