"""What a model costs before it is run: parameters, memory, FLOPs."""
