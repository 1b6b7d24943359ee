"""Benchmarks of the README: `python -m benchmarks.NAME [--only CELL]`."""
