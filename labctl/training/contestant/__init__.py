"""Other ways to train a device: each a gradient for the layer, or a search of theta."""
