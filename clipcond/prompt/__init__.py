"""Prompts as a language: tokenizer, plan, infotext. Imports no torch."""
