"""Models, tasks, methods and seeds beside each other: `python -m benchmarks.matrix run`."""
