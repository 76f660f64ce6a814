"""LIDnet: low-dose CT denoising."""
