"""Models by name: which there are, loaded whole and checked, for use or for training."""
