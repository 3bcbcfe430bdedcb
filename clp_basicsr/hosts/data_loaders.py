"""BasicSR's data loaders, looked at once they are there: what is wrong in the data is said before the training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from clp_basicsr.hosts.first_images import check_first_images
from clp_basicsr.hosts.full_batches import check_batches
from clp_basicsr.hosts.options.errors import OptionFileError

Create = Callable[..., Any]


def checked(create: Create) -> Create:
    """Return ``create_train_val_dataloader`` of basicsr/train.py with a look at what it returns."""

    @functools.wraps(create)
    def create_and_check(opt: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        try:
            loaders = create(opt, *args, **kwargs)
        except ZeroDivisionError as error:
            raise OptionFileError(
                "Data set `datasets: train` must hold images, but it has none (or `dataset_enlarge_ratio` is 0)."
            ) from error
        train_loader, _, val_loaders, *_ = loaders
        check_batches(opt, train_loader)
        check_first_images(opt, train_loader, val_loaders)
        return loaders

    return create_and_check
