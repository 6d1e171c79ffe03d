"""The prompt and settings that a picture carries: one reader for each tool that writes them."""
