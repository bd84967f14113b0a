"""MicroNews, the embedded world: photos and articles of an invented newsroom, made from a seed."""
