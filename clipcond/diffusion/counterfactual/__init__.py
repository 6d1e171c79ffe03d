"""Weights and replacements that act on the denoiser's prediction, each inside its own map of the picture."""
