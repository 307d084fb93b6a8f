"""Scores: pure functions on arrays and one small evaluator per data set."""
