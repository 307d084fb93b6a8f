"""Joints to heatmaps and back."""
