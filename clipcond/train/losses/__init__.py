"""Losses over unit features: no matrix of all pairs is held, gradients are exact, the temperature's too."""
