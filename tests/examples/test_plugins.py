"""The example plugins do what their papers say, and keep to what plugins have to."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from manyview_server import configuration
from manyview_server.learn.methods import Moment

EXAMPLES = Path(__file__).parents[2] / "examples"


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def erasing() -> ModuleType:
    return imported(EXAMPLES / "plugin_transform" / "random_erasing.py")


@pytest.fixture(scope="module")
def rotation() -> ModuleType:
    return imported(EXAMPLES / "plugin_method" / "rotation_prediction.py")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("plugin_*/*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_explained(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
    assert (path.parent / "pyproject.toml").exists()


def erased(erasing: ModuleType, numbers: torch.Tensor, **settings: Any) -> torch.Tensor:
    """(N, o, o) bool: what became gray."""
    planes = torch.ones(3, len(numbers), 40, 40)
    chosen = erasing.RandomErasingSettings(probability=1, **settings)
    result = erasing.erase(planes, numbers, chosen)
    assert set(result.unique().tolist()) <= {1.0, chosen.gray}
    assert torch.equal(result[0], result[1])
    return result[0] == chosen.gray


def test_a_rectangle_within_its_bounds_becomes_gray(erasing: ModuleType) -> None:
    numbers = torch.rand(5000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gone = erased(erasing, numbers, area_min=0.1, area_max=0.3, ratio_max=2.0)
    shares = gone.float().mean((1, 2))
    assert shares.min() > 0.08
    assert shares.max() < 0.33
    assert shares.mean().item() == pytest.approx(0.2, abs=0.02)
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(rows * columns, gone.sum((1, 2))), "a rectangle, without holes"
    ratio = columns / rows
    assert ratio.min() > 0.45
    assert ratio.max() < 2.2
    places = gone.float().mean(0)
    assert places.min() > 0, "every pixel at times"
    assert (gone.flip(1).float().mean(0) - places).abs().max() < 0.1, "above as often as below"


def test_each_view_is_erased_by_its_own_numbers_alone(erasing: ModuleType) -> None:
    numbers = torch.rand(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = erased(erasing, numbers)
    for row in range(20):
        assert torch.equal(erased(erasing, numbers[row : row + 1])[0], together[row])


def test_the_rotations_of_a_view_are_its_four_classes(rotation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = rotation.RotationSettings(backbone="resnet9", backbone_width=0.125, image_size=16)
    method = rotation.RotationPrediction(settings)
    seen: dict[str, torch.Tensor] = {}
    real = rotation.F.cross_entropy

    def cross_entropy(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.update(logits=logits, target=target)
        return real(logits, target, **options)

    monkeypatch.setattr(rotation.F, "cross_entropy", cross_entropy)
    method.encoder.register_forward_pre_hook(lambda _, arguments: seen.update(images=arguments[0]))
    views = torch.rand(2, 5, 3, 16, 16)
    output = method.forward_loss([views], torch.arange(5), Moment(step=0, total_steps=1))
    assert seen["images"].shape == (4 * 2 * 5, 3, 16, 16)
    for quarter in range(4):
        part = slice(10 * quarter, 10 * quarter + 10)
        assert torch.equal(seen["images"][part], views.flatten(0, 1).rot90(quarter, (2, 3)))
        assert (seen["target"][part] == quarter).all()
    assert output.representation.shape == (10, 64)
    assert output.scalars["chance_loss"].item() == pytest.approx(math.log(4))
    assert output.loss.item() == pytest.approx(math.log(4), abs=0.5)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_a_network_that_knows_the_turn_has_no_loss(rotation: ModuleType) -> None:
    method = rotation.RotationPrediction(rotation.RotationSettings(backbone="resnet9", backbone_width=0.125))
    method.encoder = torch.nn.Flatten()  # of an image with one bright corner
    method.classifier = torch.nn.Linear(3 * 4 * 4, 4, bias=False)
    corners = torch.zeros(4, 4, 4)
    for quarter in range(4):
        corners[quarter] = 50 * torch.eye(1, 16).view(4, 4).rot90(quarter)
    method.classifier.weight = torch.nn.Parameter(corners.repeat(1, 3, 1).view(4, 48))
    views = torch.eye(1, 16).view(1, 1, 1, 4, 4).repeat(2, 3, 3, 1, 1)
    output = method.forward_loss([views], torch.arange(3), Moment(step=0, total_steps=1))
    assert output.loss.item() < 1e-6


def test_settings_say_what_they_are(erasing: ModuleType, rotation: ModuleType) -> None:
    for settings in (erasing.RandomErasingSettings, rotation.RotationSettings):
        assert "arXiv" in settings.__doc__
        assert all(
            field["description"].endswith(".") for field in configuration.json_schema(settings)["properties"].values()
        )
