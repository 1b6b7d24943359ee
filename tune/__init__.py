"""Ray Tune sweeps: the best setting for a budget, from one YAML file."""
