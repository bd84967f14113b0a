"""Ablation ladders: rungs that are trained or evaluated one after another, and their table."""
