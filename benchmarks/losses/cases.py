"""The losses that `losses` measures: the inputs, and both sides as functions of them.

Shapes: B batch, P projection, K bank slots or prototypes.

A case builds the state of one side only (a bank, a center), so that the other's memory is not measured with it. Both
start from the same state. What a training does with the state after each loss is part of both sides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import lightly.loss
import torch
from lightly.loss.dcl_loss import DCLWLoss
from lightly.models.modules import NNMemoryBankModule
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn import losses
from manyview_server.learn.modules.memory_bank import MemoryBank

Loss = Callable[..., Tensor]
PROJECTION, WIDE = 128, 2048
OTHER_IMAGES = 10**6
"""Ids of the bank's images start here: none of them is in the batch, since lightly does not mask those."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss on both sides."""

    inputs: Callable[[int], list[Tensor]]
    """Returns the tensors that gradients reach, float32, for a batch size."""
    ours: Callable[[], Loss]
    lightly: Callable[[], Loss]


def normal(*shape: int, seed: int) -> Tensor:
    """Return random numbers, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(batch: int, dim: int = PROJECTION) -> list[Tensor]:
    """Return projections of two views, which resemble each other."""
    first = normal(batch, dim, seed=0)
    return [first, first + normal(batch, dim, seed=1)]


def scores(views: int, outputs: int, scale: float, batch: int) -> list[Tensor]:
    """Return outputs of several views."""
    return [scale * normal(batch, outputs, seed=view) for view in range(views)]


def stored_keys(slots: int) -> Tensor:
    """Return the keys in a full bank."""
    return F.normalize(normal(slots, PROJECTION, seed=2), dim=1)


def our_bank(slots: int) -> MemoryBank:
    """Return a full bank."""
    bank = MemoryBank(slots, PROJECTION)
    bank.enqueue(stored_keys(slots), torch.arange(OTHER_IMAGES, OTHER_IMAGES + slots))
    return bank


def of_bank(slots: int) -> Case:
    """NT-Xent over a bank, which takes the keys afterwards. Gradients reach the queries, as in MoCo."""

    def ours() -> Loss:
        bank = our_bank(slots)

        def loss(query: Tensor) -> Tensor:
            key, ids = key_of(query), torch.arange(len(query))
            value = losses.info_nce(
                query, key, bank.keys, bank.filled, 0.2, image_ids=ids, bank_image_ids=bank.image_ids
            )
            bank.enqueue(F.normalize(key.float(), dim=1), ids)
            return value

        return loss

    def theirs() -> Loss:
        criterion = lightly.loss.NTXentLoss(0.2, memory_bank_size=(slots, PROJECTION))
        criterion.memory_bank.bank = stored_keys(slots)
        return lambda query: criterion(query, key_of(query))

    return Case(inputs=lambda batch: pair(batch)[:1], ours=ours, lightly=theirs)


@functools.cache
def key_like(batch: int, dtype: torch.dtype) -> Tensor:
    """Return the keys that a teacher would make."""
    return pair(batch)[1].to(dtype)


def key_of(query: Tensor) -> Tensor:
    """Return the keys for a batch of queries."""
    return key_like(len(query), query.dtype)


def of_neighbors(slots: int) -> Case:
    """The nearest keys of a bank, which takes the queries afterwards. The value is the mean cosine, which has no graph
    to the search.
    """

    def ours() -> Loss:
        bank = our_bank(slots)

        def loss(z: Tensor) -> Tensor:
            ids = torch.arange(len(z))
            nearest = losses.nearest_keys(z, bank.keys, bank.filled, image_ids=ids, bank_image_ids=bank.image_ids).keys
            bank.enqueue(F.normalize(z.detach().float(), dim=1), ids)
            return (nearest * z).sum() / len(z)

        return loss

    def theirs() -> Loss:
        bank = NNMemoryBankModule((slots, PROJECTION))
        bank.bank = stored_keys(slots)
        return lambda z: (bank(z.detach(), update=True) * z).sum() / len(z)

    return Case(inputs=lambda batch: [F.normalize(pair(batch)[0], dim=1)], ours=ours, lightly=theirs)


def of_pair(ours: Loss, theirs: Callable[[], Loss], dim: int = PROJECTION) -> Case:
    """A loss of two views without state."""
    return Case(inputs=lambda batch: pair(batch, dim), ours=lambda: ours, lightly=theirs)


def of_dino(views: int, outputs: int) -> Case:
    """DINO with two views of the teacher, and the move of the center."""

    def ours() -> Loss:
        center = torch.zeros(outputs)

        def loss(student: Tensor) -> Tensor:
            teacher = student[:2].detach() / 2
            value = losses.dino(student, teacher, center.to(teacher.dtype) if teacher.dtype.itemsize > 4 else center)
            losses.update_center(center, teacher)
            return value

        return loss

    def theirs() -> Loss:
        criterion = lightly.loss.DINOLoss(outputs)

        def loss(student: Tensor) -> Tensor:
            value: Tensor = criterion(list((student[:2].detach() / 2).unbind()), list(student.unbind()))
            return value

        return loss

    return Case(inputs=lambda batch: [torch.stack(scores(views, outputs, 1.0, batch))], ours=ours, lightly=theirs)


def of_swav(views: int, prototypes: int) -> Case:
    """SwAV with two whole views, and smaller ones."""

    def theirs() -> Loss:
        criterion = lightly.loss.SwaVLoss()

        def loss(of_all: Tensor) -> Tensor:
            value: Tensor = criterion(list(of_all[:2].unbind()), list(of_all[2:].unbind())).squeeze()
            return value

        return loss

    return Case(
        inputs=lambda batch: [torch.stack(scores(views, prototypes, 0.2, batch)).tanh()],
        ours=lambda: lambda of_all: losses.swav(of_all[:2], of_all[2:]),
        lightly=theirs,
    )


CASES: dict[str, Case] = {
    "NT-Xent, bank of 65,536": of_bank(65_536),
    "NT-Xent, bank of 4,096": of_bank(4_096),
    "NT-Xent": of_pair(lambda a, b: losses.nt_xent(a, b, 0.1), lambda: lightly.loss.NTXentLoss(0.1)),
    "DCL": of_pair(lambda a, b: losses.dcl(a, b, 0.1), lambda: lightly.loss.DCLLoss(0.1)),
    "DCLW": of_pair(lambda a, b: losses.dcl(a, b, 0.1, weight_sigma=0.5), lambda: DCLWLoss(0.1, sigma=0.5)),
    "nearest keys, bank of 65,536": of_neighbors(65_536),
    "negative cosine": of_pair(losses.negative_cosine, lightly.loss.NegativeCosineSimilarity),
    "Barlow Twins, 2,048 wide": of_pair(losses.barlow_twins, lightly.loss.BarlowTwinsLoss, WIDE),
    "VICReg, 2,048 wide": of_pair(losses.vicreg, lightly.loss.VICRegLoss, WIDE),
    "SwAV, 8 views, 3,000 prototypes": of_swav(8, 3_000),
    "DINO, 8 views, 2,048 outputs": of_dino(8, 2_048),
}
