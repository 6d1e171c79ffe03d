"""Text and image towers behind one interface, over open_clip and transformers."""
