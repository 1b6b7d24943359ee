"""A matrix as one HTML file that needs nothing else, with CSV, Parquet and Markdown beside it."""

from benchmarks.matrix.confusion import confusion_picture
from benchmarks.matrix.report.page import SHORT, write_report

__all__ = ["SHORT", "confusion_picture", "write_report"]
