from __future__ import annotations

import math

import pytest
import timm
import torch

from manyview_server.learn import backbones
from manyview_server.learn.backbones.vit import Attention, VisionTransformer
from manyview_server.learn.losses import nt_xent


def small(image_size: int = 32, patch_size: int = 8, **options: float) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(2, depth=2, image_size=image_size, patch_size=patch_size, **options).eval()


def tokens_of(network: VisionTransformer, images: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.forward_tokens(images, **options)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("vit_small", "vit_small_patch16_224"),
        pytest.param("vit_base", "vit_base_patch16_224", marks=pytest.mark.long),
    ],
)
def test_a_state_dict_loads_into_timm_and_gives_the_same_features_and_tokens(name: str, theirs: str) -> None:
    torch.manual_seed(0)
    ours = backbones.build(name).eval()
    reference = timm.create_model(theirs, num_classes=0, dynamic_img_size=True).eval()
    reference.load_state_dict(ours.state_dict())
    for size in ((224, 224), (32, 64)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)
            expected = reference.forward_features(images)
        torch.testing.assert_close(tokens_of(ours, images), expected, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


def test_the_weights_of_a_network_whose_positions_were_learned_give_its_features() -> None:
    torch.manual_seed(0)
    reference = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10).eval()
    with torch.no_grad():
        reference.pos_embed.normal_()
    ours = backbones.build("vit_tiny", image_size=64, patch_size=16).eval()
    ours.load_state_dict(ours.fitted(reference.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    reference.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)


def test_weights_of_another_image_size_and_of_a_whole_autoencoder_are_made_to_fit() -> None:
    large, ours = small(64), small(32)
    theirs = {
        **large.state_dict(),
        "mask_token": torch.zeros(1, 1, 512),
        "decoder_pos_embed": torch.zeros(1, 65, 512),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(1),
        "head.weight": torch.zeros(10, 128),
    }
    ours.load_state_dict(ours.fitted(theirs))
    assert ours.pos_embed.shape == (1, 17, 128)
    # A smooth function of the place: every second row and column, half a patch on, lies between its neighbors.
    grid = large.pos_embed[0, 1:].view(8, 8, 128)
    torch.testing.assert_close(ours.pos_embed[0, 6], grid[2:4, 2:4].mean((0, 1)), rtol=0, atol=0.15)


def test_positions_are_the_sines_and_cosines_of_column_and_row() -> None:
    network = small(32, 8)
    quarter = network.embed_dim // 4
    assert torch.equal(network.pos_embed[0, 0], torch.zeros(network.embed_dim))
    for row, column in ((0, 0), (1, 3), (3, 2)):
        frequencies = [10_000 ** (-i / quarter) for i in range(quarter)]
        expected = [
            function(place * frequency)
            for place in (column, row)
            for function in (math.sin, math.cos)
            for frequency in frequencies
        ]
        torch.testing.assert_close(network.pos_embed[0, 1 + 4 * row + column], torch.tensor(expected))
    assert not network.pos_embed.requires_grad
    assert "pos_embed" not in dict(network.named_parameters())


def test_what_is_kept_is_all_that_the_network_sees() -> None:
    network, images = small(), torch.randn(3, 3, 32, 32)
    keep = torch.tensor([[0, 5, 9], [15, 2, 7], [3, 4, 8]])
    kept = tokens_of(network, images, keep=keep)
    assert kept.shape == (3, 1 + 3, network.embed_dim)
    hidden = torch.ones(3, 16, dtype=torch.bool).scatter(1, keep, False)
    patches = hidden.view(3, 1, 4, 1, 4, 1).expand(-1, 3, -1, 8, -1, 8).reshape(3, 3, 32, 32)
    torch.testing.assert_close(tokens_of(network, images.masked_fill(patches, 99.0), keep=keep), kept)
    changed = images.clone()
    changed[0, :, :8, 8 * 1 : 8 * 2] += 1  # patch 1 of image 0, which is hidden
    changed[1, :, :8, 8 * 2 : 8 * 3] += 1  # patch 2 of image 1, which is kept
    found = tokens_of(network, changed, keep=keep)
    assert torch.equal(found[0], kept[0])
    assert not torch.allclose(found[1], kept[1])


def test_patches_that_are_kept_keep_their_places_in_the_order_asked_for() -> None:
    network, images = small(), torch.randn(2, 3, 32, 32)
    everything = tokens_of(network, images)
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    shuffled = tokens_of(network, images, keep=order)
    torch.testing.assert_close(shuffled[:, 0], everything[:, 0])
    expected = everything[:, 1:].gather(1, order[:, :, None].expand(-1, -1, network.embed_dim))
    torch.testing.assert_close(shuffled[:, 1:], expected)
    none = tokens_of(network, images, keep=torch.empty(2, 0, dtype=torch.int64))
    assert none.shape == (2, 1, network.embed_dim)


def test_a_masked_patch_is_its_token_and_its_place() -> None:
    network, images = small(), torch.randn(2, 3, 32, 32)
    mask = torch.rand(2, 16) < 0.5
    mask[0, 3], mask[0, 4] = True, False
    token = torch.randn(network.embed_dim, requires_grad=True)
    found = network.forward_tokens(images, mask=mask, mask_token=token)
    found[:, 0, 0].sum().backward()
    assert token.grad is not None
    assert token.grad.abs().sum() > 0
    changed = images.clone()
    changed[0, :, :8, 24:] += 1  # patch 3 of image 0, which is masked
    torch.testing.assert_close(tokens_of(network, changed, mask=mask, mask_token=token), found.detach())
    changed[0, :, 8:16, :8] += 1  # patch 4, which is not
    assert not torch.allclose(tokens_of(network, changed, mask=mask, mask_token=token)[0], found[0].detach())
    assert not torch.allclose(found[0, 1 + 3], found[0, 1 + int(mask[0].nonzero()[-1])]), "their places differ"
    plain = tokens_of(network, images, mask=torch.zeros(2, 16, dtype=torch.bool), mask_token=token)
    torch.testing.assert_close(plain, tokens_of(network, images))


def test_two_sizes_of_view_go_through_one_network() -> None:
    network = small(64, 8)
    for size in ((64, 64), (32, 32), (24, 40), (8, 8), (128, 64)):
        assert network(torch.randn(2, 3, *size)).shape == (2, network.feature_dim)
        tokens = tokens_of(network, torch.randn(2, 3, *size))
        assert tokens.shape == (2, 1 + network.num_patches(*size), network.embed_dim)
    assert (network.grid(64), network.grid(24, 40), network.num_patches(64)) == ((8, 8), (3, 5), 64)


def test_an_image_that_is_no_multiple_of_the_patch_is_refused_with_the_nearest_sizes() -> None:
    message = r"image_size: {} pixels are no multiple of patch_size 8; nearest: {}"
    with pytest.raises(ValueError, match=message.format(30, "24 or 32")):
        small(30)
    with pytest.raises(ValueError, match=message.format(33, "32 or 40")):
        small()(torch.randn(1, 3, 32, 33))
    with pytest.raises(ValueError, match=message.format(5, "8")):
        small()(torch.randn(1, 3, 5, 32))
    with pytest.raises(
        ValueError, match="image_size: 33 pixels are no multiple of a patch_size of 2; nearest: 32 or 34"
    ):
        backbones.build("vit_tiny", image_size=33)


def test_patches_that_are_not_told_are_chosen_by_the_image_size() -> None:
    network = backbones.build("vit_tiny", image_size=32, width=1 / 3)
    assert (network.chosen, network.patch_size) == ({"patch_size": 4}, 4)


def test_width_multiplies_the_heads() -> None:
    widths = {1 / 3: 64, 0.1: 64, 1: 192, 2: 384}
    for width, feature_dim in widths.items():
        network = backbones.build("vit_tiny", image_size=32, width=width)
        assert network.feature_dim == feature_dim
        heads = {module.num_heads for module in network.modules() if isinstance(module, Attention)}
        assert heads == {feature_dim // 64}
    with pytest.raises(ValueError, match="width must be above 0 and at most 8"):
        backbones.build("vit_tiny", width=9)


def test_every_pixel_matters_and_every_parameter_learns_also_where_patches_are_hidden() -> None:
    network = small().train()
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    network(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
    network.zero_grad()
    network.forward_tokens(images, keep=torch.tensor([[1, 2, 3], [7, 8, 9]]))[:, :, 0].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_under_bfloat16_the_features_are_nearly_the_same() -> None:
    network, images = small(), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(images).float()
    assert torch.cosine_similarity(exact, rough).min() > 0.999


@pytest.mark.long
def test_a_contrastive_loss_falls() -> None:
    """A vision transformer learns to distinguish pictures, whatever part of each it sees."""
    torch.manual_seed(0)
    network = backbones.build("vit_tiny", image_size=16, width=1 / 3).train()
    pictures = torch.randn(16, 3, 1, 1) + 0.3 * torch.randn(16, 3, 16, 16)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        one, other = (network.forward_tokens(pictures, torch.rand(16, 64).argsort(1)[:, :48])[:, 0] for _ in range(2))
        loss = nt_xent(one, other, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
