"""Sweep files: reading Weights & Biases sweep configurations, and our own part of them."""
