"""Analysis of prompts: the phrases of one, the figures of many."""
