"""Data: annotation files -> samples -> augmented crops and heatmaps -> batches."""
