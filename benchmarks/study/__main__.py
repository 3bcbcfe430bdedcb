"""The study in one command; the same command continues one that was stopped.

python -m benchmarks.study benchmarks/study/small.yml -o FOLDER             train, judge on the development photos
python -m benchmarks.study benchmarks/study/small.yml -o FOLDER --test      then, once: judge on the test photos
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study import photos, report, runs
from benchmarks.study.matrix import read_matrix
from benchmarks.study.results import write_csv
from clp_basicsr.demo.command import positive


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrix", type=Path, help="a YAML file such as benchmarks/study/small.yml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--test", action="store_true", help="judge what is trained on the test photos")
    parser.add_argument("--show", nargs="+", metavar="ARM", help="the arms in the pictures (default: all)")
    options = parser.parse_args(arguments)
    study = options.output.resolve()
    matrix = read_matrix(options.matrix).with_weights_in(study)
    unknown = set(options.show or ()) - matrix.arms.keys()
    if unknown:
        parser.error(f"--show must name arms out of {list(matrix.arms)}, but got {sorted(unknown)}")
    study.mkdir(parents=True, exist_ok=True)
    if options.test:
        runs.judge_test_photos(matrix, study, options.jobs)
    else:
        runs.train_all(matrix, study, options.jobs)
    part = "test" if options.test else "development"
    title = f"{options.matrix.stem}_{part}"
    results = runs.read_scores(study, part, matrix.runs())
    if not results:
        parser.error(f"there is nothing to judge in '{study}': without --test the same command trains")
    write_csv(results, study / f"{title}.csv")
    print(report.write(results, study, title))
    photos.draw(matrix, study, part, title, options.show)


if __name__ == "__main__":
    main()
