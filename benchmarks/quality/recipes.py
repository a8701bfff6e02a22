"""The recipes of both sides, after lightly's CIFAR-10 benchmark, with heads for the 256 features of ResNet-9 x 0.5.

The optimizer is SGD with learning rate 0.06, momentum 0.9, weight decay 5e-4 and a cosine schedule. Batches have 128
images. Views have 32 pixels and no blur; DINO has two views. The bank holds 1,024 keys, because 10,000 images are a
fifth of CIFAR-10. Gradients of Barlow Twins and VICReg are clipped on both sides: without clipping, lightly's networks
ended below an untrained one and at chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

BATCH_SIZE = 128
CLIP_GRADIENT_NORM = {"barlow_twins": 2.0, "vicreg": 2.0}

RECIPES: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": 0.5, "projection_hidden_dim": 256, "projection_dim": 128},
    "moco": {
        "temperature": 0.1,
        "projection_hidden_dim": 256,
        "projection_dim": 128,
        "memory_bank_size": 1024,
        "ema_momentum": 0.99,
    },
    "byol": {
        "projection_hidden_dim": 1024,
        "projection_dim": 256,
        "prediction_hidden_dim": 1024,
        "ema_momentum": 0.99,
        "ema_momentum_end": None,
    },
    "simsiam": {"projection_hidden_dim": 1024, "projection_dim": 1024, "prediction_hidden_dim": 256},
    "barlow_twins": {"projection_hidden_dim": 1024, "projection_dim": 1024},
    "vicreg": {"projection_hidden_dim": 1024, "projection_dim": 1024, "projection_layers": 2},
    "dino": {
        "projection_hidden_dim": 1024,
        "projection_dim": 256,
        "num_prototypes": 2048,
        "frozen_prototypes_epochs": 0,
        "ema_momentum": 0.99,
        "ema_momentum_end": None,
    },
}


def cell_arguments(description: str | None) -> argparse.Namespace:
    """Parse the command line of either side, which trains one cell."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--method", choices=RECIPES, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    return parser.parse_args()
