from __future__ import annotations

import lightly.loss
import pytest
import torch
from lightly.loss.dcl_loss import DCLWLoss
from lightly.loss.swav_loss import sinkhorn as their_sinkhorn
from lightly.models import utils as their_utils
from torch import Tensor

from manyview_server.learn import losses
from support.learning.agreement import TOLERANCES, assert_losses_agree, assert_near, normal

SHAPES = [(2, 3), (3, 1), (5, 64), (8, 16), (33, 7), (64, 128)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_seed = pytest.mark.parametrize("seed", range(5))
every_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def views(count: int, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> list[Tensor]:
    return [normal(*shape, seed=100 * seed + view, dtype=dtype) for view in range(count)]


@every_dtype
@every_seed
@every_shape
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_nt_xent(shape: tuple[int, int], seed: int, dtype: torch.dtype, temperature: float) -> None:
    theirs = lightly.loss.NTXentLoss(temperature=temperature)
    inputs = views(2, shape, seed, dtype)
    assert_losses_agree(lambda a, b: losses.nt_xent(a, b, temperature), theirs, inputs, TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
@pytest.mark.parametrize("weight_sigma", [None, 0.5])
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # the reference's own
def test_dcl_and_dclw(shape: tuple[int, int], seed: int, dtype: torch.dtype, weight_sigma: float | None) -> None:
    theirs = lightly.loss.DCLLoss(0.1) if weight_sigma is None else DCLWLoss(0.1, sigma=weight_sigma)
    inputs = views(2, shape, seed, dtype)
    assert_losses_agree(
        lambda a, b: losses.dcl(a, b, 0.1, weight_sigma=weight_sigma), theirs, inputs, TOLERANCES[dtype]
    )


@every_dtype
@every_seed
@every_shape
def test_negative_cosine(shape: tuple[int, int], seed: int, dtype: torch.dtype) -> None:
    theirs = lightly.loss.NegativeCosineSimilarity()
    assert_losses_agree(losses.negative_cosine, theirs, views(2, shape, seed, dtype), TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
def test_barlow_twins(shape: tuple[int, int], seed: int, dtype: torch.dtype) -> None:
    theirs = lightly.loss.BarlowTwinsLoss(lambda_param=0.01)
    inputs = views(2, shape, seed, dtype)
    assert_losses_agree(lambda a, b: losses.barlow_twins(a, b, 0.01), theirs, inputs, TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
def test_vicreg(shape: tuple[int, int], seed: int, dtype: torch.dtype) -> None:
    theirs = lightly.loss.VICRegLoss(20.0, 15.0, 2.0)
    inputs = views(2, shape, seed, dtype)
    assert_losses_agree(lambda a, b: losses.vicreg(a, b, 20.0, 15.0, 2.0), theirs, inputs, TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
@pytest.mark.parametrize(("num_student", "num_teacher"), [(2, 2), (6, 2), (2, 1)])
def test_dino_and_its_center_over_four_calls(
    shape: tuple[int, int], seed: int, dtype: torch.dtype, num_student: int, num_teacher: int
) -> None:
    theirs = lightly.loss.DINOLoss(shape[1], teacher_temp=0.05, student_temp=0.15, center_momentum=0.8).to(dtype)
    center = torch.zeros(shape[1], dtype=dtype)
    for call in range(4):
        student = views(num_student, shape, 10 * seed + call, dtype)
        teacher = views(num_teacher, shape, 1000 + 10 * seed + call, dtype)

        def our_loss(*student: Tensor, teacher: list[Tensor] = teacher) -> Tensor:
            stacked = torch.stack(student), torch.stack(teacher)
            return losses.dino(*stacked, center, student_temperature=0.15, teacher_temperature=0.05)

        def their_loss(*student: Tensor, teacher: list[Tensor] = teacher) -> Tensor:
            return theirs(teacher, list(student))

        assert_losses_agree(our_loss, their_loss, student, TOLERANCES[dtype])
        losses.update_center(center, torch.stack(teacher), 0.8)
        assert_near(center, theirs.center[0, 0], TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_sinkhorn(shape: tuple[int, int], seed: int, dtype: torch.dtype, iterations: int) -> None:
    scores = torch.tanh(normal(*shape, seed=seed, dtype=dtype))  # cosines
    ours = losses.sinkhorn(scores, epsilon=0.05, iterations=iterations)
    assert_near(ours, their_sinkhorn(scores, iterations, 0.05), TOLERANCES[dtype])


@every_dtype
@every_seed
@every_shape
@pytest.mark.parametrize(("num_global", "num_local", "num_queue"), [(2, 0, 0), (2, 6, 0), (2, 2, 40), (1, 3, 9)])
def test_swav(
    shape: tuple[int, int], seed: int, dtype: torch.dtype, num_global: int, num_local: int, num_queue: int
) -> None:
    theirs = lightly.loss.SwaVLoss(temperature=0.12)
    inputs = [torch.tanh(view) for view in views(num_global + num_local, shape, seed, dtype)]
    queues = [torch.tanh(q) for q in views(num_global, (num_queue, shape[1]), 50 + seed, dtype)] if num_queue else None

    def our_loss(*scores: Tensor) -> Tensor:
        return losses.swav(
            torch.stack(scores[:num_global]),
            torch.stack(scores[num_global:]) if num_local else None,
            queue_scores=None if queues is None else torch.stack(queues),
            temperature=0.12,
        )

    def their_loss(*scores: Tensor) -> Tensor:
        return theirs(list(scores[:num_global]), list(scores[num_global:]), queues)

    assert_losses_agree(our_loss, their_loss, inputs, TOLERANCES[dtype])


@every_seed
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_patches_and_their_normalization(patch_size: int, seed: int) -> None:
    images = normal(3, 3, 16, 16, seed=seed)
    patches = losses.patchify(images, patch_size)
    assert torch.equal(patches, their_utils.patchify(images, patch_size))
    assert_near(losses.normalized_patches(patches), their_utils.normalize_mean_var(patches), 1e-6)
