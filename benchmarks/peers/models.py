"""The models that all sides serve: checkpoints of short jobs, and their weights in files for the peers.

ResNet-18 starts with torchvision's weights of seed 0. A job of one epoch for each input size and number format gives
manyview a model of that size and format. Its exported weights are what the peers serve.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision
from benchmarks.peers.load import first_images
from benchmarks.peers.model_files import expected, job_name, server_data, weights
from benchmarks.peers.plan import NUMBER_FORMATS, SIZES
from safetensors.torch import save_file

import manyview

NUM_TRAINED, NUM_EXPECTED = 64, 16
TORCHVISION = "torchvision-seed-0.safetensors"


def prepare(folder: Path, images: Path) -> None:
    """Train the models that are missing, export their weights, and embed the first images."""
    wanted = [(size, number_format) for size in SIZES for number_format in NUMBER_FORMATS]
    if all(expected(folder, *one).exists() for one in wanted):
        return
    _save_torchvision(server_data(folder) / "weights" / TORCHVISION)
    jpegs = first_images(images)
    with manyview.local(server_data(folder)) as client:
        for size, number_format in wanted:
            if not expected(folder, size, number_format).exists():
                _prepare(client, folder, jpegs, size, number_format)


def _prepare(client: manyview.Client, folder: Path, jpegs: list[bytes], size: int, number_format: str) -> None:
    config = {
        "backbone": "resnet18",
        "backbone_weights": TORCHVISION,
        "stem": "imagenet",
        "image_size": size,
        "batch_size": 32,
        "precision": number_format,
        "evaluation": {"knn_every_epochs": 0},
    }
    dataset = client.upload(jpegs[:NUM_TRAINED], dataset=f"peers-{size}", progress=False)
    job = client.train(dataset, "simclr", epochs=1, config=config, job_id=job_name(size, number_format))
    job.wait(timeout_s=600, progress=False)
    weights(folder, size, number_format).unlink(missing_ok=True)
    client.export(job, weights(folder, size, number_format), progress=False)
    found = client.embed(jpegs[:NUM_EXPECTED], job, progress=False)
    np.save(expected(folder, size, number_format), found.array)


def _save_torchvision(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
