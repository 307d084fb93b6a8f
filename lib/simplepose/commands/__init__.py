"""The commands, one module with a main() each."""
