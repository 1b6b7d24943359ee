"""Puts the kept tables into the README, so that no figure there is typed by hand."""

from __future__ import annotations

import re

from benchmarks.cells import RESULTS, ROOT


def main() -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` by that table."""
    path = ROOT / "README.md"
    text = path.read_text()
    for table in sorted(RESULTS.glob("*.md")):
        name = table.stem
        block = f"<!-- {name} -->\n{table.read_text().strip()}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, text, flags=re.S)  # noqa: B023
    path.write_text(text)


if __name__ == "__main__":
    main()
