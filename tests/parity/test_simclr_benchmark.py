"""Both sides of the benchmark of SimCLR train the same network with the same work, on the same views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.simclr.job import config
from benchmarks.simclr.network import measure
from benchmarks.simclr.peer import Loop, Network, turn
from benchmarks.simclr.plan import TRAININGS, Setting, Training, sides
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from manyview_server.learn.methods import build_method, resolve

SETTING = Setting(precision="float32", workers=0, threads=1)
TINY = Training(network="resnet18", image_size=64, batch_size=2, steps_per_epoch=1, epochs=1, warm_up=1, trial_steps=1)


def networks(training: Training) -> tuple[nn.Module, nn.Module]:
    method: Any = build_method(resolve("simclr", config(training, "float32")), training.num_images)
    return nn.Sequential(method.encoder, method.head), Network(training.network)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_networks_are_the_same(name: str) -> None:
    training = TRAININGS[name]
    ours, theirs = networks(training)
    with torch.no_grad():
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            a.copy_(b)
    images = torch.randn(1, 3, training.image_size, training.image_size).double()
    flops, outputs = [], []
    for network in (ours, theirs):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs.append(network.double().eval()(images))
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0
    torch.testing.assert_close(outputs[0], outputs[1])


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_step_of_lightly_follows_the_gradient(one_pass: bool) -> None:
    torch.manual_seed(0)
    loop = Loop(TINY, Setting(precision="float32", workers=0, threads=1, one_pass=one_pass))
    x0, x1 = torch.randn(2, 4, 3, 64, 64)
    losses = [loop.step(x0, x1).item() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_a_turn_of_lightly_counts_its_images(tmp_path: Path) -> None:
    Image.new("RGB", (80, 100), "green").save(path := tmp_path / "a.jpg")
    found = turn(TINY, SETTING, [path] * 2, 1, 2)
    assert set(found) == {"images_per_second", "cpu_ms_per_image", "others"}
    assert found["images_per_second"] > 0


def test_the_bare_networks_of_both_sides_are_measured() -> None:
    job, *_, tuned = sides(False)
    for side, setting in ((job, None), (tuned, SETTING)):
        found = measure(TINY, side, setting)
        assert found["network_ms_per_image"] > 0
        assert 0.2 < found["matrix_fraction"] <= 1
