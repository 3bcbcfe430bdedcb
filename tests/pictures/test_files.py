"""Image files against OpenCV's reader, which BasicSR trains with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from clp_basicsr.pictures.files import as_bytes, read_image

RANDOM = np.random.default_rng(0)
GREY, COLOUR = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8), RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def as_basicsr_reads(path: Path) -> NDArray[np.float32]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None
    return bgr[..., ::-1].astype(np.float32) / 255


@pytest.mark.parametrize("name", ["grey", "colour", "alpha", "grey of 16 bits", "colour of 16 bits", "turned"])
def test_as_opencv_reads_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    if "16" in name:
        assert cv2.imwrite(str(path), (GREY if "grey" in name else COLOUR).astype(np.uint16) * 257)
    elif name == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(COLOUR).save(path, exif=exif)
    else:
        pixels = {"grey": GREY, "colour": COLOUR, "alpha": np.dstack([COLOUR, GREY])}[name]
        Image.fromarray(pixels).save(path)
    read = read_image(path)
    np.testing.assert_allclose(read[0].permute(1, 2, 0).numpy(), as_basicsr_reads(path), atol=1 / 255 / 2)
    assert read.is_contiguous()


def test_what_is_read_is_what_is_written(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert np.array_equal(as_bytes(read_image(tmp_path / "a.png")), COLOUR)
    assert as_bytes(torch.full((1, 3, 1, 1), 1.5)).max() == 255
