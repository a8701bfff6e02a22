from __future__ import annotations

import pytest

from manyview_server.configuration.cross_field_rules import view_size
from manyview_server.configuration.networks.patch_size import choose_patch_size


def test_the_size_of_the_patches_follows_from_that_of_the_images() -> None:
    chosen = {224: 16, 192: 16, 112: 16, 96: 8, 64: 8, 56: 8, 48: 4, 32: 4, 28: 4, 16: 2, 8: 2, 30: 2}
    assert {size: choose_patch_size(size) for size in chosen} == chosen
    with pytest.raises(
        ValueError, match="image_size: 33 pixels are no multiple of a patch_size of 2; nearest: 32 or 34"
    ):
        choose_patch_size(33)


@pytest.mark.parametrize("fraction", [0.05, 0.3, 96 / 224, 0.5, 0.9, 1.0])
def test_a_smaller_view_divides_into_the_patches_of_the_whole_one(fraction: float) -> None:
    for image_size in range(8, 400, 2):
        size = view_size(image_size, fraction)
        assert 8 <= size <= image_size
        assert size % choose_patch_size(image_size) == 0
        patches = choose_patch_size(image_size)
        assert abs(size - fraction * image_size) <= max(patches, 4) / 2 or size == max(8, 2 * patches)
    assert view_size(224, 96 / 224) == 96, "DINO's and SwAV's"
