"""``clp_basicsr.train``, and what each of its processes trained on and logged.

``torchrun ... -m hosts.recorded_train -opt FILE`` writes ``steps_RANK.json`` in the working directory.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Step:
    """One training iteration of one process."""

    images: list[str]
    log: dict[str, float]


@contextmanager
def recorded() -> Iterator[list[Step]]:
    """Record the training iterations of any model in this process."""
    from basicsr.models.base_model import BaseModel
    from basicsr.models.sr_model import SRModel

    from clp_basicsr.hosts.replacing import replaced

    feed, reduce = SRModel.feed_data, BaseModel.reduce_loss_dict
    steps: list[Step] = []
    fed: list[str] = []

    def feed_data(model: Any, data: dict[str, Any]) -> None:
        fed[:] = [Path(path).stem for path in data["gt_path"]]
        feed(model, data)

    def reduce_loss_dict(model: Any, losses: dict[str, Any]) -> Any:
        log = reduce(model, losses)
        steps.append(Step(list(fed), dict(log)))
        return log

    with replaced(SRModel, "feed_data", feed_data), replaced(BaseModel, "reduce_loss_dict", reduce_loss_dict):
        yield steps


def steps_of(folder: Path, rank: int) -> list[Step]:
    """Return what a process recorded."""
    return [Step(**step) for step in json.loads((folder / f"steps_{rank}.json").read_text(encoding="utf-8"))]


def _main() -> None:
    import clp_basicsr.train

    with recorded() as steps:
        clp_basicsr.train.main()
    file = Path(f"steps_{os.environ['RANK']}.json")
    file.write_text(json.dumps([asdict(step) for step in steps]), encoding="utf-8")


if __name__ == "__main__":
    _main()
