"""Codecs: joints to heatmaps and back."""
