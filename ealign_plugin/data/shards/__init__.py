"""Samples on disk: WebDataset shards of annotated news photos and their index."""
