"""The syntaxes that prompts are written in: one reader each, what they share, and translation between them."""
