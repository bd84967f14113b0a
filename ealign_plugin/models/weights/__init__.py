"""Weights from outside and to outside: hubs, packages, LAVIS, checkpoints, export."""
