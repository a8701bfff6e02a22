from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import methods
from manyview_server.learn.losses import patchify
from manyview_server.learn.methods.reconstruction.simmim import SimMIM, SimMIMSettings
from manyview_server.learn.modules.masking import block_mask
from manyview_server.learn.schedules import Moment

AT = Moment(step=7, total_steps=10, steps_per_epoch=2)  # in epoch 3
SMALL = {"backbone_width": 0.3, "image_size": 16, "patch_size": 4, "batch_size": 8}
IDS = torch.arange(5)


def simmim(**overrides: object) -> SimMIM:
    torch.manual_seed(0)
    return SimMIM(SimMIMSettings(**(SMALL | overrides)))  # type: ignore[arg-type]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def hide(images: Tensor, mask: Tensor) -> Tensor:
    """The images with other pixels in the patches (5, 16) that are hidden."""
    pixels = mask.view(5, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(pixels, 9.0, images)


def test_the_loss_is_the_mean_absolute_error_of_the_hidden_patches(images: Tensor) -> None:
    method = simmim()
    output = method.forward_loss([images[None]], IDS, AT)
    mask = block_mask(IDS, (4, 4), 0.6, block=1, seed=0, epoch=3)
    tokens = method.encoder.backbone.forward_tokens(images, mask=mask, mask_token=method.mask_token)
    error = (method.predict(tokens[:, 1:]) - patchify(images, 4)).abs().mean(2)
    torch.testing.assert_close(output.loss, error[mask].mean())
    torch.testing.assert_close(output.representation, tokens[:, 0].detach())
    assert output.projection is None


def test_hidden_pixels_are_not_seen(images: Tensor) -> None:
    method = simmim()
    mask = method.settings.hidden_patches(IDS, 16, epoch=3)
    assert torch.equal(mask, block_mask(IDS, (4, 4), 0.6, block=1, seed=0, epoch=3))
    seen, changed = (method.forward_loss([each[None]], IDS, AT) for each in (images, hide(images, mask)))
    assert torch.equal(seen.representation, changed.representation)
    assert seen.loss != changed.loss
    other = method.forward_loss([hide(images, ~mask)[None]], IDS, AT)
    assert not torch.allclose(seen.representation, other.representation)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "block"), [(192, 16, 2), (224, 16, 2), (32, 4, 1), (96, 8, 2), (16, 4, 1)]
)
def test_squares_are_a_sixth_of_the_side(image_size: int, patch_size: int, block: int) -> None:
    method = simmim(image_size=image_size, patch_size=patch_size, backbone_width=0.1)
    assert method.chosen == {"mask_block": block}


def test_a_square_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match=r"mask_block: must be below 4, the patches on a side .*\(got 4\)"):
        methods.resolve("simmim", {"image_size": 16, "patch_size": 4, "mask_block": 4})
    assert simmim(mask_block=3).settings.block == 3


def test_one_linear_layer_guesses() -> None:
    method = simmim()
    assert {name for name, _ in method.named_children()} == {"encoder", "predict"}
    assert (method.predict.in_features, method.predict.out_features) == (64, 48)
    assert method.projection_dim == 0
