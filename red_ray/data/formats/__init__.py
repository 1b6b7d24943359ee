"""One reader per table format, all with the same result: a schema and a stream of Arrow tables.

Parquet keeps its types and JSONL gets the narrowest one that fits a whole column; CSV, TSV
and XLSX are strings throughout, where an empty cell is the empty string.
"""
