"""The patches that training hides are named for views of each size."""

import pytest
import torch

from manyview_server.learn import methods
from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings
from manyview_server.learn.views.replay import View
from manyview_server.worker.previewing import hidden_patches

IDS = torch.tensor([11, 12])


@pytest.mark.parametrize(("method", "num_hidden"), [("mae", [12, 3]), ("simmim", [10, 2])])
def test_each_view_has_the_numbers_of_its_hidden_patches(method: str, num_hidden: list[int]) -> None:
    settings = methods.resolve(method, {"image_size": 32, "patch_size": 8})
    assert isinstance(settings, MaskedImageSettings)
    views = [[View(pipeline=0, pixels=torch.zeros(3, size, size), parameters={}) for size in (32, 16)] for _ in IDS]
    hidden_patches.describe(settings, IDS, views, epoch=2)
    for row, of_image in enumerate(views):
        for view, count in zip(of_image, num_hidden, strict=True):
            mask = settings.hidden_patches(IDS, view.pixels.shape[-1], epoch=2)
            assert mask is not None
            numbers = mask[row].nonzero().flatten().tolist()
            assert view.parameters == {"hidden_patches": {"patch_size": 8, "patches": numbers}}
            assert len(numbers) == count
