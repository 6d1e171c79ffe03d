"""Endings of files: those of pictures, and those of texts that stand beside them."""

from __future__ import annotations

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})
SIDECARS = (".txt", ".caption", ".json")
