"""Drivers: one module or folder a family, found by labctl through entry points."""
