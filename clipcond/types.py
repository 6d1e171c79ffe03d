"""Shared small types, without dependencies."""
