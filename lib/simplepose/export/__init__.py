"""Export of networks for other runtimes."""
