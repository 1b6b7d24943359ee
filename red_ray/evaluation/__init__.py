"""The scorecard, its baselines, and the report."""
