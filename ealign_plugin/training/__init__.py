"""A training run: the step, several processes, precision, the optimiser, checkpoints."""
