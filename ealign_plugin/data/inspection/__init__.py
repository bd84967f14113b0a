"""What a folder of shards holds: figures, leaks, and a page that shows them."""
