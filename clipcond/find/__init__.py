"""Answers about pictures from embeddings alone: classes, rules, questions, searches, captions, probes and tuned prompts."""
