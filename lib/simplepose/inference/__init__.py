"""Inference: from images to poses."""
