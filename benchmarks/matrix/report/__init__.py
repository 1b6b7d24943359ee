"""A matrix as one HTML file that needs nothing else, with CSV and Parquet beside it."""

from benchmarks.matrix.confusion import confusion_picture
from benchmarks.matrix.report.markdown import full_table, short_table
from benchmarks.matrix.report.page import write_report

__all__ = ["confusion_picture", "full_table", "short_table", "write_report"]
