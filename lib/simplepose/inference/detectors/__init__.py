"""Person detectors, a file for each family."""
