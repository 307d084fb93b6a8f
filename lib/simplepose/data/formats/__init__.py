"""Labelled images of any tool in one form: `base.Labels`. One module a tool, each with `read`, `write` and `IMAGES`."""
