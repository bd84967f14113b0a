"""Samples on disk: WebDataset shards of annotated news photos, written once and streamed in any mix."""
