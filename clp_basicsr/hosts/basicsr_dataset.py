"""A paired data set that brings a third image beside each pair: the negative of the source `files`."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from torch import Tensor

from clp_basicsr.hosts.unfit_pairs import UnfitPairError, in_words


class PairedNegativeDataset(PairedImageDataset):  # type: ignore[misc]
    """BasicSR's PairedImageDataset with ``dataroot_neg``: a folder, or a list of folders.

    Each holds, for every GT image, an image of the same file name and size. Items have ``neg``
    ``(3, H, W)``, or ``(K, 3, H, W)`` for K folders, cropped and flipped as ``gt`` is.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        """Pair the files.

        Raises:
            FileNotFoundError: if a GT image has no negative.
            ValueError: if ``dataroot_neg`` is missing, or the images are not files on disk.
        """
        super().__init__(opt)
        folders = opt.get("dataroot_neg")
        if not folders or opt["io_backend"]["type"] != "disk":
            raise ValueError(
                "PairedNegativeDataset needs `dataroot_neg` (a folder, or a list of folders) and `io_backend: type: "
                f"disk`, but got {folders!r} and {opt['io_backend']['type']!r}."
            )
        self.several = isinstance(folders, (list, tuple))
        self.neg_folders = [Path(folder).expanduser() for folder in (folders if self.several else [folders])]
        for folder in self.neg_folders:
            missing = [name for name in map(self._name, range(len(self))) if not (folder / name).is_file()]
            if missing:
                raise FileNotFoundError(
                    f"`dataroot_neg` must hold an image of the same name for every GT image, but {len(missing)} of "
                    f"{len(self)} are not in '{folder}', among them '{missing[0]}'."
                )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the pair and its negatives, all with the same crop and flips."""
        state = random.getstate()
        item: dict[str, Any] = super().__getitem__(index)
        negatives = [self._as_gt(folder, index, state) for folder in self.neg_folders]
        return {**item, "neg": torch.stack(negatives) if self.several else negatives[0]}

    def _name(self, index: int) -> str:
        return Path(self.paths[index]["gt_path"]).name

    def _as_gt(self, folder: Path, index: int, state: Any) -> Tensor:
        """Read an image in GT's place, under the random choices that GT met."""
        view = copy.copy(self)
        view.paths = {index: {**self.paths[index], "gt_path": str(folder / self._name(index))}}
        random.setstate(state)
        try:
            images: dict[str, Tensor] = PairedImageDataset.__getitem__(view, index)
        except ValueError as error:  # BasicSR's, which takes the negative for GT
            raise UnfitPairError(
                f"`dataroot_neg` must hold images of the size of their GT, but '{folder / self._name(index)}' is not: "
                f"{in_words(error.__cause__ or error)} (its GT is the negative here)."
            ) from error
        return images["gt"]
