"""labctl: train a physical nonlinear-optics reservoir whose Jacobian nobody knows."""

__version__ = "0.1.0"
