import io

import numpy as np
import pytest
from PIL import Image

from manyview_server.worker.previewing import png


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (224, 224)])
def test_what_is_written_is_what_others_read(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png.encode(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)


def test_a_smooth_picture_becomes_small() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    smooth = np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)
    assert len(png.encode(smooth)) < smooth.nbytes / 10
