"""The alignment page: a bench looked at and lit by hand, within the same limits."""
