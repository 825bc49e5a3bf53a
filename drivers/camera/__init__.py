"""Cameras: one life cycle, one sensor a library."""
