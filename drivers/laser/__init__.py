"""Lasers on a wire: one life cycle, one dialect a head."""
