"""Benchmarks, one command each; see ``docs/results.md``."""
