"""The method itself: plain Python, no torch, no LAVIS."""
