"""The settings of a peer's server. It is imported where there is no torch, too."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

VARIABLE = "PEER_SETTINGS"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server. They travel in an environment variable, because peers start more processes."""

    weights: str
    """A file in the safetensors format, without the classifier."""
    image_size: int
    number_format: str
    """float32 as torchvision builds the network, or bfloat16 in channels_last."""
    port: int
    max_batch: int
    wait_ms: int
    """The time that an incomplete batch waits for more images."""
    workers: int
    threads: int
    """The threads of each worker."""
    fast_queue: bool = False
    """LitServe's queue for many requests."""

    @classmethod
    def read(cls) -> Settings:
        """Return the settings in the environment."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def variables(self) -> dict[str, str]:
        """Return the environment variable that holds these settings."""
        return {VARIABLE: json.dumps(asdict(self))}
