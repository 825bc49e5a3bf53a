"""Learned backward passes: phase and cotangent in, gradient of the phase out."""
