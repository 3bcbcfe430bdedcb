"""Images in any folder, or the reason why not: OpenCV gives none, and on Windows knows no names that are not ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from clp_basicsr.whole_files import whole_file


class WritingAnywhere:
    """OpenCV, but for ``imwrite``: to stand for it in the one module of BasicSR's that writes images."""

    def __init__(self, cv2: ModuleType) -> None:
        """Stand for ``cv2``."""
        self._cv2 = cv2

    def __getattr__(self, name: str) -> Any:
        """Return OpenCV's own."""
        return getattr(self._cv2, name)

    def imwrite(self, filename: str, img: Any, params: Sequence[int] | None = None) -> bool:
        """Write an image as ``cv2.imwrite`` does, by Python's own files; say whether OpenCV could encode it.

        Args:
            filename: where to, with an ending that OpenCV knows.
            img: as OpenCV has it.
            params: of the encoder.

        Raises:
            OSError: if it cannot be written.
        """
        is_encoded, content = self._cv2.imencode(Path(filename).suffix, img, params or ())
        if is_encoded:
            with whole_file(Path(filename)) as file:
                file.write(content.tobytes())
        return bool(is_encoded)
