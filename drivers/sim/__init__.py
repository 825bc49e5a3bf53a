"""The simulated bench: devices that share one light path."""
