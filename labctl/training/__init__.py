"""Tensors in, tensors out: losses, probes, surrogates, estimators, the trainer."""
