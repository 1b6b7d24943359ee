"""Puts the kept tables into README and docs/measured.md, so that no figure is typed by hand."""

from __future__ import annotations

import re

from benchmarks.cells import RESULTS, ROOT

PAGES = ("README.md", "docs/measured.md")


def main() -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` by that table."""
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        for table in sorted(RESULTS.glob("*.md")):
            text = with_block(text, table.stem, table.read_text().strip())
        path.write_text(text)


def with_block(text: str, name: str, table: str) -> str:
    """The text, with the table between its marks; as it is where it has none."""
    block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
    return re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, text, flags=re.S)


if __name__ == "__main__":
    main()
