"""Images of all formats and of the size of phone photographs, from the upload to embeddings and previews."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import manyview

TURNED: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
}
TURN_LEFT = 8
"""The EXIF orientation of an image that must be turned by a quarter against the clock."""


def smooth(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width) * 255 // width, np.arange(height) * 255 // height)
    return Image.fromarray(np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_all_formats_stand_upright_in_lists_embeddings_and_previews(client: manyview.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = TURN_LEFT
    lying = smooth(96, 64)
    upright = lying.transpose(Image.Transpose.ROTATE_90)
    files = [saved(lying, kind, exif=exif, **options) for kind, options in TURNED.items()]
    files += [saved(upright, kind) for kind in ("BMP", "PPM")]
    dataset = client.upload(files, dataset="formats")
    assert [(image.width, image.height) for image in client.images(dataset)] == [(64, 96)] * len(files)
    rows = client.embed(files, model="backbones/resnet9").array
    np.testing.assert_allclose(rows, np.broadcast_to(rows[-1], rows.shape), atol=0.1 * float(np.abs(rows[-1]).max()))
    preview = client.preview(files, method="simclr", config={"image_size": 16})
    assert preview.shapes == ((96, 64),) * len(files)
    for original in preview.originals:
        assert original is not None
        assert np.abs(original.astype(int) - preview.originals[-1]).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_animation_is_stored_as_its_first_frame(client: manyview.Client, kind: str) -> None:
    first, second = smooth(40, 30), smooth(40, 30).transpose(Image.Transpose.ROTATE_180)
    moving = saved(first, kind, save_all=True, append_images=[second])
    dataset = client.upload([moving], dataset=f"moving-{kind.lower()}")
    assert [(image.width, image.height) for image in client.images(dataset)] == [(40, 30)]
    rows = client.embed([moving, saved(first, kind), saved(second, kind)], model="backbones/resnet9").array
    assert np.abs(rows[0] - rows[1]).max() < 0.2 * np.abs(rows[0] - rows[2]).max()


def test_a_photograph_of_24_megapixels_and_25_megabytes_passes_by_default(client: manyview.Client) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4000, 6000), dtype=np.uint8)
    photo = saved(Image.fromarray(noise).convert("RGB"), "JPEG", quality=96)
    assert 25_000_000 < len(photo) < 33_000_000
    dataset = client.upload([photo, saved(smooth(40, 30), "PNG")], dataset="photographs")
    assert dataset.upload is not None
    assert (dataset.upload.num_stored, dataset.upload.num_rejected) == (2, 0)
    large = next(image for image in client.images(dataset) if image.width == 6000)
    assert client.read_image(dataset, large) == photo
    found = client.embed([photo], model="backbones/resnet9")
    assert not found.errors
    assert np.isfinite(found.array).all()
