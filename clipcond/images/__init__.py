"""Pictures as files and as pixels, with Pillow and NumPy: found, decoded, prepared for an encoder, written. No torch."""
