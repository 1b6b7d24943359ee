"""Benchmarks behind README and docs/measured.md: `python -m benchmarks.NAME [--only CELL]`."""
