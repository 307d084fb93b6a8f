"""Training: the loop, its state and checkpoints, evaluation, health checks."""
