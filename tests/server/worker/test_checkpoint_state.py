from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manyview_server.learn import backbones, methods, optimizers
from manyview_server.learn.methods import Method, Moment, build_method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import train_step
from manyview_server.store.jobs import checkpoints
from manyview_server.worker import checkpoint_state
from support.clients.probe import require
from support.faults.disks import small_tmpfs


def small(method: str, **overrides: Any) -> TrainSettings:
    values = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 8}
    return methods.resolve(method, values | overrides)


def build(settings: TrainSettings) -> tuple[Method, Optimizer]:
    method = build_method(settings, 64)
    assert settings.batch_size is not None
    return method, optimizers.build(settings.optimizer, method, settings.batch_size)


def step(method: Method, optimizer: Optimizer, number: int) -> None:
    views = torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(number))
    moment = Moment(step=number, total_steps=10)
    train_step(method, optimizer, [views], torch.arange(8) + 8 * number, moment)


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw", "lars"])
@pytest.mark.parametrize("method_name", ["simclr", "moco", "dino", "swav"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path, method_name: str, optimizer_name: str) -> None:
    scheduled = {"name": optimizer_name, "weight_decay_end": 0.4, "clip_gradient_norm": 1.0, "warmup_epochs": 2}
    method, optimizer = build(small(method_name, optimizer=scheduled))
    for number in range(3):
        step(method, optimizer, number)
    checkpoint_state.write(tmp_path / "000000003-1", checkpoint_state.capture(method, optimizer), b'{"step": 3}')
    checkpoints.verify(tmp_path / "000000003-1")

    again, its_optimizer = build(small(method_name, seed=5, optimizer=scheduled))
    checkpoint_state.restore(tmp_path / "000000003-1", again, its_optimizer)
    for number in range(3, 6):
        step(method, optimizer, number)
        step(again, its_optimizer, number)
    one, other = checkpoint_state.capture(method, optimizer), checkpoint_state.capture(again, its_optimizer)
    for file, tensors in one.items():
        assert set(tensors) == set(other[file])
        assert all(torch.equal(tensors[name], other[file][name]) for name in tensors)


def test_what_was_captured_does_not_change_when_training_goes_on() -> None:
    method, optimizer = build(small("simclr"))
    captured = checkpoint_state.capture(method, optimizer)[checkpoints.BACKBONE]["conv1.weight"]
    before = captured.clone()
    step(method, optimizer, 0)
    assert not torch.equal(method.encoder.backbone.state_dict()["conv1.weight"], before)
    assert torch.equal(captured, before)


def test_the_backbones_file_is_the_export_with_its_own_names_and_nothing_else(tmp_path: Path) -> None:
    method, optimizer = build(small("moco"))
    checkpoint_state.write(tmp_path / "000000000-1", checkpoint_state.capture(method, optimizer), b"{}")
    weights = load_file(tmp_path / "000000000-1" / checkpoints.BACKBONE)
    assert set(weights) == set(method.encoder.backbone.state_dict())
    fresh = backbones.build("resnet9", width=0.125, stem="small")
    checkpoint_state.restore_backbone(tmp_path / "000000000-1" / checkpoints.BACKBONE, fresh)
    trained = method.encoder.backbone.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in fresh.state_dict().items())


def test_teacher_bank_and_momentum_are_in_the_checkpoint() -> None:
    method, optimizer = build(small("moco"))
    names = set(checkpoint_state.capture(method, optimizer)[checkpoints.STATE])
    assert {"method.bank.keys", "method.bank.pointer", "method.teacher.encoder.backbone.conv1.weight"} <= names
    num_momenta = sum(name.startswith("optimizer.") for name in names)
    assert num_momenta == len(optimizer.parameters)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    method, optimizer = build(small("simclr"))
    checkpoint_state.write(tmp_path / "000000000-1", checkpoint_state.capture(method, optimizer), b"{}")
    for other in (small("moco"), small("simclr", projection_dim=9), small("simclr", backbone_width=0.25)):
        with pytest.raises(ValueError, match="does not fit"):
            checkpoint_state.restore(tmp_path / "000000000-1", *build(other))


def test_momentum_begins_at_zero_where_the_run_had_none_and_is_missed_where_it_lost_some(tmp_path: Path) -> None:
    method, optimizer = build(small("simclr"))
    step(method, optimizer, 0)
    without_momentum = checkpoint_state.capture(*build(small("simclr", optimizer={"momentum": 0.0})))
    checkpoint_state.write(tmp_path / "000000001-1", without_momentum, b"{}")
    fresh, its_optimizer = build(small("simclr", seed=5))
    checkpoint_state.restore(tmp_path / "000000001-1", fresh, its_optimizer)
    assert not any(each["momentum_buffer"].any() for each in its_optimizer.state.values())
    lossy = checkpoint_state.capture(method, optimizer)
    lost = next(name for name in lossy[checkpoints.STATE] if name.startswith("optimizer."))
    del lossy[checkpoints.STATE][lost]
    checkpoint_state.write(tmp_path / "000000002-1", lossy, b"{}")
    with pytest.raises(ValueError, match="lacks the optimizer's momentum_buffer"):
        checkpoint_state.restore(tmp_path / "000000002-1", method, optimizer)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    checkpoint_state.write(tmp_path / "000000000-1", checkpoint_state.capture(*build(small("simclr"))), b"{}")
    with pytest.raises(ValueError, match="lacks the optimizer's step of parameter 0"):
        checkpoint_state.restore(tmp_path / "000000000-1", *build(small("simclr", optimizer={"name": "adamw"})))


def test_weights_that_are_no_safetensors_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="does not fit"):
        checkpoint_state.restore_backbone(tmp_path / "weights.safetensors", backbones.build("resnet9"))


def test_a_full_disk_is_told_as_any_file_tells_it_and_leaves_nothing(tmp_path: Path) -> None:
    require("tmpfs")
    with small_tmpfs(1) as disk:
        with pytest.raises(OSError, match="No space left") as caught:
            checkpoint_state.write(disk / "000000001-1", {checkpoints.STATE: {"bank": torch.zeros(1_000_000)}}, b"{}")
        assert caught.value.errno == errno.ENOSPC
        assert not os.listdir(disk)


@pytest.mark.parametrize("name", ["simclr", "moco", "mae"])
def test_a_vision_transformer_goes_on_at_another_image_size(tmp_path: Path, name: str) -> None:
    vit = {"backbone": "vit_tiny", "backbone_width": 0.34, "patch_size": 4, "batch_size": 8}
    method, optimizer = build(methods.resolve(name, vit | {"image_size": 16}))
    step(method, optimizer, 0)
    checkpoint_state.write(tmp_path / "000000001-1", checkpoint_state.capture(method, optimizer), b'{"step": 1}')
    larger, its_optimizer = build(methods.resolve(name, vit | {"image_size": 32, "seed": 5}))
    checkpoint_state.restore(tmp_path / "000000001-1", larger, its_optimizer)
    own, restored = method.state_dict(), larger.state_dict()
    positions = [key for key in own if key.endswith("pos_embed")]
    assert len(positions) == (2 if name == "moco" else 1), "the teacher's, too"
    assert all(restored[key].shape[1] == 1 + 8 * 8 for key in positions)
    assert all(torch.equal(own[key], restored[key]) for key in own if key not in positions)
