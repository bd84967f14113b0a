"""Attention of ours inside transformers' decoders."""
