"""Training pairs of which BasicSR cannot cut crops, said with the file and in one line, out of workers too."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.options.errors import OptionFileError


class UnfitPairError(OptionFileError):
    """A GT and its LR, or another image in the place of one, that do not fit each other or the size of the crops."""

    def __str__(self) -> str:
        """Return what is wrong, without the worker's traceback, which a data loader puts before it."""
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2].strip()


def name_the_file(transforms: ModuleType) -> None:
    """Let BasicSR's random crop of a pair say which one it is; once is enough.

    Args:
        transforms: ``basicsr.data.transforms``, before its data sets are imported, which take the function from it.
    """
    original = getattr(transforms, "paired_random_crop", None)
    if original is None or not first_time(original, "paired_random_crop"):
        return

    @functools.wraps(original)
    def paired_random_crop(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except ValueError as error:
            gt_path = kwargs.get("gt_path", args[4] if len(args) > 4 else None)
            if gt_path is None:
                raise
            raise UnfitPairError(f"GT '{gt_path}' and its LR cannot be trained with: {in_words(error)}") from error

    transforms.paired_random_crop = paired_random_crop  # type: ignore[attr-defined]


def in_words(error: BaseException) -> str:
    """Return what BasicSR says, which comes in several pieces."""
    return " ".join(" ".join(map(str, error.args)).split())
