"""Shards → examples to train on, endlessly, and samples to evaluate, each once."""
