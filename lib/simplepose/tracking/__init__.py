"""Pose tracking, section 3 of the paper: detect people, carry them over by optical flow, match them."""
