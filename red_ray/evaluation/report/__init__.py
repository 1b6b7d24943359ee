"""A run as one HTML file that needs nothing else: no network, no script of others."""

from red_ray.evaluation.report.page import write_report

__all__ = ["write_report"]
