"""The study in one command; the same command continues one that was stopped.

python -m benchmarks.study benchmarks/study/small.yml -o FOLDER             train, judge on the development photos
python -m benchmarks.study benchmarks/study/small.yml -o FOLDER --test      then, once: judge on the test photos
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.study.matrix import read_matrix


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrix", type=Path, help="a YAML file such as benchmarks/study/small.yml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--test", action="store_true", help="judge what is trained on the test photos")
    options = parser.parse_args()
    matrix, study = read_matrix(options.matrix), options.output.resolve()
    from benchmarks.study import report, runs

    study.mkdir(parents=True, exist_ok=True)
    if options.test:
        runs.judge_test_photos(matrix, study, options.jobs)
    else:
        runs.train_all(matrix, study, options.jobs)
    print(report.write(matrix, study, "test" if options.test else "development"))


if __name__ == "__main__":
    main()
