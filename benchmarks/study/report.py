"""Tables, plot and pictures of a study; from its CSV file alone too.

python -m benchmarks.study.report docs/evidence/small_test.csv -o FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study import pictures, tables
from benchmarks.study.results import Results, read_csv


def write(results: Results, folder: Path, title: str, references: Sequence[str] = tables.CONTROLS) -> str:
    """Write ``{title}.md``, against the arms ``references``, and ``{title}.png``; return the former."""
    text = "\n".join(tables.report(results, references))
    (folder / f"{title}.md").write_text(text + "\n", encoding="utf-8")
    pictures.plot(results, folder / f"{title}.png")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="a study's CSV file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables and the plot")
    parser.add_argument(
        "--against",
        nargs="+",
        default=tables.CONTROLS,
        metavar="ARM",
        help="compare with these (default: both controls)",
    )
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    print(write(read_csv(options.csv), options.output, options.csv.stem, options.against))


if __name__ == "__main__":
    main()
