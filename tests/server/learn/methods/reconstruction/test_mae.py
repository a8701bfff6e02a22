from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import methods
from manyview_server.learn.losses import normalized_patches, patchify
from manyview_server.learn.methods.reconstruction.mae import MAE, MAESettings
from manyview_server.learn.modules.masking import split_patches
from manyview_server.learn.schedules import Moment

AT = Moment(step=7, total_steps=10, steps_per_epoch=2)  # in epoch 3
SMALL = {"backbone_width": 0.3, "image_size": 16, "patch_size": 4, "batch_size": 8, "decoder_heads": 2}
IDS = torch.arange(5)


def mae(**overrides: object) -> MAE:
    torch.manual_seed(0)
    return MAE(MAESettings(**SMALL, **overrides))  # type: ignore[arg-type]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_of_the_hidden_patches_alone_normalised_each(images: Tensor) -> None:
    method = mae()
    loss = method.forward_loss([images[None]], IDS, AT).loss
    kept, hidden = split_patches(IDS, 16, 0.75, seed=0, epoch=3)
    assert (kept.shape, hidden.shape) == ((5, 4), (5, 12))
    guessed = method.decoder(method.encoder.backbone.forward_tokens(images, kept), kept)
    target = normalized_patches(patchify(images, 4))
    each = [(guessed[b, n] - target[b, n]).square().mean() for b in range(5) for n in hidden[b]]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_targets_can_be_pixels_as_they_are(images: Tensor) -> None:
    normalised, plain = (mae(normalize_targets=wanted) for wanted in (True, False))
    bright = [10 * images[None] + 3]
    assert normalised.forward_loss(bright, IDS, AT).loss < 3
    assert plain.forward_loss(bright, IDS, AT).loss > 30


def test_hidden_pixels_never_reach_the_encoder(images: Tensor) -> None:
    method = mae()
    _, hidden = split_patches(IDS, 16, 0.75, seed=0, epoch=3)
    shown = method.settings.hidden_patches(IDS, 16, epoch=3)
    assert [row.nonzero().flatten().tolist() for row in shown] == [sorted(row.tolist()) for row in hidden]
    seen = method.forward_loss([images[None]], IDS, AT).representation
    changed = images.clone()
    for b in range(5):
        row, column = divmod(int(hidden[b, 0]), 4)
        changed[b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 9.0
    output = method.forward_loss([changed[None]], IDS, AT)
    assert torch.equal(output.representation, seen)
    assert not torch.equal(output.loss, method.forward_loss([images[None]], IDS, AT).loss)


def test_the_decoder_knows_every_patch_by_its_place(images: Tensor) -> None:
    method = mae().double()
    kept, _ = split_patches(IDS, 16, 0.75, seed=0, epoch=3)
    tokens = method.encoder.backbone.forward_tokens(images.double(), kept)
    guessed = method.decoder(tokens, kept)
    assert guessed.shape == (5, 16, 48)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], 1)
    torch.testing.assert_close(method.decoder(shuffled, kept[:, order]), guessed)
    assert not torch.allclose(method.decoder(shuffled, kept), guessed)


def test_masks_change_from_epoch_to_epoch_and_not_within(images: Tensor) -> None:
    method = mae()
    steps = [Moment(step=step, total_steps=10, steps_per_epoch=2) for step in (6, 7, 8)]
    first, again, other = (method.forward_loss([images[None]], IDS, moment).loss for moment in steps)
    assert first == again
    assert first != other


def test_nothing_but_the_decoder_comes_on_top_and_it_is_as_wide_as_its_heads() -> None:
    method = mae(decoder_depth=3)
    assert {name for name, _ in method.named_children()} == {"encoder", "decoder"}
    assert method.decoder.positions.shape == (1, 17, 64)
    assert len(method.decoder.blocks) == 3
    assert method.projection_dim == 0


@pytest.mark.parametrize("name", ["mae", "simmim"])
@pytest.mark.parametrize(
    ("overrides", "field", "message"),
    [
        ({"backbone": "resnet18"}, "backbone", "one of 'vit_tiny', 'vit_small', 'vit_base'"),
        ({"backbone": "timm/vit_tiny_patch16_224"}, "backbone", "one of 'vit_tiny', 'vit_small', 'vit_base'"),
        ({"embedding_dim": 32}, "embedding_dim", "trains nothing after the backbone"),
        ({"image_size": 16, "patch_size": 16}, "patch_size", "at most half of image_size, which is 16"),
        ({"mask_ratio": 1.0}, "mask_ratio", "below 1"),
        ({"views": {"preset": "simclr"}}, "views.pipelines", "takes 1 view of the whole image_size"),
    ],
)
def test_what_cannot_hide_patches_is_refused(name: str, overrides: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        methods.resolve(name, overrides)
    assert [violation.field for violation in caught.value.violations] == [field]
