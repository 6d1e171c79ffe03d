"""What can be said about prompts: the phrases of one, the figures of many."""
