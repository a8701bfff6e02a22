"""The peer: lightly's own transforms, heads and losses in the loop of its CIFAR-10 benchmark, with our backbone.

It prints one JSON object. lightly must be installed, as in the environment of `make parity`.
Shapes: B batch, D feature.

lightly's parts are the transforms (PIL images in a worker process for each core), the heads, the losses, the memory
bank, the momentum update, SGD for all parameters, and float32. Two things are made equal on both sides: the backbone is
ours, and the cosine of the learning rate is updated at each step. With an update at each epoch, as in lightly's
benchmark, four epochs would have a mean learning rate of 0.62 of the peak instead of 0.5. Images are decoded in memory
before.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from benchmarks.quality import cifar10
from benchmarks.quality.recipes import BATCH_SIZE, CLIP_GRADIENT_NORM, RECIPES, cell_arguments
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from manyview_server.learn import backbones

SIZE = 32


class Views(Dataset[Any]):
    """A data set of images; each item is the list of views that one of lightly's transforms makes."""

    def __init__(self, pixels: cifar10.Array, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self._pixels = pixels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, row: int) -> list[Tensor]:
        return self._transform(Image.fromarray(self._pixels[row]))


class Peer(nn.Module):
    """A backbone with the parts of one of lightly's methods. `loss` takes the two views, (B, 3, 32, 32)."""

    teacher_momentum: float | None = None

    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.recipe = recipe

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        raise NotImplementedError

    def update_teacher(self) -> None:
        """Update the teacher before a step."""


class SimCLR(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__(backbone, recipe)
        self.head = SimCLRProjectionHead(
            backbone.feature_dim, recipe["projection_hidden_dim"], recipe["projection_dim"]
        )
        self.criterion = NTXentLoss(temperature=recipe["temperature"])

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        z0, z1 = (self.head(self.backbone(x)) for x in (x0, x1))
        return self.criterion(z0, z1)


class MoCo(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead

        super().__init__(backbone, recipe)
        self.head = MoCoProjectionHead(backbone.feature_dim, recipe["projection_hidden_dim"], recipe["projection_dim"])
        self.key_backbone, self.key_head = _copies(self.backbone, self.head)
        bank = (recipe["memory_bank_size"], recipe["projection_dim"])
        self.criterion = NTXentLoss(temperature=recipe["temperature"], memory_bank_size=bank)

    def update_teacher(self) -> None:
        _follow([(self.backbone, self.key_backbone), (self.head, self.key_head)], self.recipe["ema_momentum"])

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        return 0.5 * (self._one_side(x0, x1) + self._one_side(x1, x0))

    def _one_side(self, query: Tensor, key: Tensor) -> Tensor:
        with torch.no_grad():
            k = self.key_head(self.key_backbone(key))
        return self.criterion(self.head(self.backbone(query)), k)


class BYOL(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__(backbone, recipe)
        hidden, out = recipe["projection_hidden_dim"], recipe["projection_dim"]
        self.head = BYOLProjectionHead(backbone.feature_dim, hidden, out)
        self.predictor = BYOLPredictionHead(out, recipe["prediction_hidden_dim"], out)
        self.target_backbone, self.target_head = _copies(self.backbone, self.head)
        self.criterion = NegativeCosineSimilarity()

    def update_teacher(self) -> None:
        _follow([(self.backbone, self.target_backbone), (self.head, self.target_head)], self.recipe["ema_momentum"])

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        p0, p1 = (self.predictor(self.head(self.backbone(x))) for x in (x0, x1))
        with torch.no_grad():
            z0, z1 = (self.target_head(self.target_backbone(x)) for x in (x0, x1))
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))


class SimSiam(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        super().__init__(backbone, recipe)
        hidden, out = recipe["projection_hidden_dim"], recipe["projection_dim"]
        self.head = SimSiamProjectionHead(backbone.feature_dim, hidden, out)
        self.predictor = SimSiamPredictionHead(out, recipe["prediction_hidden_dim"], out)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        z0, z1 = (self.head(self.backbone(x)) for x in (x0, x1))
        p0, p1 = self.predictor(z0), self.predictor(z1)
        return 0.5 * (self.criterion(p0, z1.detach()) + self.criterion(p1, z0.detach()))


class BarlowTwins(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules import BarlowTwinsProjectionHead

        super().__init__(backbone, recipe)
        hidden, out = recipe["projection_hidden_dim"], recipe["projection_dim"]
        self.head = BarlowTwinsProjectionHead(backbone.feature_dim, hidden, out)
        self.criterion = BarlowTwinsLoss()

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        z0, z1 = (self.head(self.backbone(x)) for x in (x0, x1))
        return self.criterion(z0, z1)


class VICReg(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__(backbone, recipe)
        hidden, out = recipe["projection_hidden_dim"], recipe["projection_dim"]
        self.head = VICRegProjectionHead(backbone.feature_dim, hidden, out, num_layers=2)
        self.criterion = VICRegLoss()

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        z0, z1 = (self.head(self.backbone(x)) for x in (x0, x1))
        return self.criterion(z0, z1)


class DINO(Peer):
    def __init__(self, backbone: nn.Module, recipe: dict[str, Any]) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        super().__init__(backbone, recipe)
        hidden, bottleneck, out = (
            recipe[name] for name in ("projection_hidden_dim", "projection_dim", "num_prototypes")
        )
        shape = {"batch_norm": True, "norm_last_layer": True}
        # The head's weight norm cannot be deep-copied.
        self.head, self.teacher_head = (
            DINOProjectionHead(backbone.feature_dim, hidden, bottleneck, out, **shape) for _ in range(2)
        )
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.teacher_head.requires_grad_(False)
        (self.teacher_backbone,) = _copies(self.backbone)
        self.criterion = DINOLoss(out, warmup_teacher_temp_epochs=0)

    def update_teacher(self) -> None:
        _follow([(self.backbone, self.teacher_backbone), (self.head, self.teacher_head)], self.recipe["ema_momentum"])

    def loss(self, x0: Tensor, x1: Tensor, epoch: int) -> Tensor:
        with torch.no_grad():
            teacher = [self.teacher_head(self.teacher_backbone(x)) for x in (x0, x1)]
        student = [self.head(self.backbone(x)) for x in (x0, x1)]
        return self.criterion(teacher, student, epoch=epoch)


PEERS: dict[str, type[Peer]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "dino": DINO,
}


def transform(method: str) -> Callable[[Image.Image], list[Tensor]]:
    """Return lightly's transform for the method, for 32 pixels and without blur."""
    from lightly import transforms as t

    plain: dict[str, Any] = {"input_size": SIZE, "gaussian_blur": 0.0}
    if method in ("byol", "barlow_twins"):
        return t.BYOLTransform(t.BYOLView1Transform(**plain), t.BYOLView2Transform(**plain))
    if method == "dino":
        return t.DINOTransform(global_crop_size=SIZE, n_local_views=0, gaussian_blur=(0.0, 0.0, 0.0))
    makers = {"moco": t.MoCoV2Transform, "simsiam": t.SimSiamTransform, "vicreg": t.VICRegTransform}
    if method in makers:
        return makers[method](**plain)
    return t.SimCLRTransform(**plain, cj_strength=0.5)


def train(method: str, pixels: cifar10.Array, seed: int, epochs: int) -> tuple[nn.Module, dict[str, float]]:
    """Train. Returns the backbone, and the times of the loop including its workers."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    recipe = RECIPES[method]
    model = PEERS[method](backbones.build("resnet9", width=0.5, stem="small"), recipe)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.06 * BATCH_SIZE / 128, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        Views(pixels, transform(method)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    began, cpu_began = time.monotonic(), time.process_time()
    for epoch in range(epochs):
        for x0, x1 in loader:
            model.update_teacher()
            loss = model.loss(x0, x1, epoch)
            optimizer.zero_grad()
            loss.backward()
            if method in CLIP_GRADIENT_NORM:
                nn.utils.clip_grad_norm_(trained, CLIP_GRADIENT_NORM[method])
            optimizer.step()
            schedule.step()
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    del loader  # its workers end
    gc.collect()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return model.backbone, {"seconds": seconds, "cpu_seconds": cpu_seconds + workers.ru_utime + workers.ru_stime}


def _copies(*modules: nn.Module) -> Iterator[nn.Module]:
    return (copy.deepcopy(module).requires_grad_(False) for module in modules)


def _follow(pairs: list[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    from lightly.models.utils import update_momentum

    for student, teacher in pairs:
        update_momentum(student, teacher, m=momentum)


def main() -> None:
    """Measure one cell."""
    arguments = cell_arguments(__doc__)
    warnings.simplefilter("ignore")
    train_split, test_split = cifar10.read(arguments.images)
    pixels = train_split.pixels()
    network, times = train(arguments.method, pixels, arguments.seed, arguments.epochs)
    parts = (cifar10.features(network, part) for part in (pixels, test_split.pixels()))
    print(json.dumps({"knn_top1": cifar10.top1(train_split, test_split, *parts), **times}))


if __name__ == "__main__":
    main()
