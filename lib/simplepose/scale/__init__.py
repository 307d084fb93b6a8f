"""Inference over more files than one process should read: on Ray Data, from and to any storage, into one table."""
