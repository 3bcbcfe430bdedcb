"""Images in any folder, or the reason why not: OpenCV gives none, and on Windows knows no names that are not ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_anywhere(filename: str, image: Any, parameters: Sequence[int] = ()) -> bool:
    """Write an image as ``cv2.imwrite`` does, by Python's own files.

    Args:
        filename: where to, with an ending that OpenCV knows.
        image: as OpenCV has it.
        parameters: of the encoder.

    Raises:
        OSError: if it cannot be written.
    """
    import cv2

    is_encoded, content = cv2.imencode(Path(filename).suffix, image, parameters)
    if is_encoded:
        Path(filename).write_bytes(content.tobytes())
    return bool(is_encoded)
