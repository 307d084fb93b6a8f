"""Reports about results."""
