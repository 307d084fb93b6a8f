"""Experiment files and what is in them."""
