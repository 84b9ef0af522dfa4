"""Experiments: what was run, and what came out."""
