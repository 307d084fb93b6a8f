"""The configuration: its keys, and reading experiment files."""
