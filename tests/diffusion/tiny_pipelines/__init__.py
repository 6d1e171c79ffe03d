"""Tiny pipelines of random weights: any class of diffusers that reads CLIP, built from its signature, and what it proves.

For the tests here and for `benchmarks/pipelines.py`, which puts this folder's parent on the path.
"""
