"""The network that every peer serves: JPEG files in, ResNet-18 features out, decoded and resized as manyview does.

Shapes: B images, S pixels on a side of the input, D features.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
import torchvision
from benchmarks.peers.serving.settings import Settings
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

MEAN = 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class ServedModel:
    """The network and the threads of one worker."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self._size = settings.image_size
        self._dtype = torch.float32
        self._network = torchvision.models.resnet18(weights=None)
        self._network.fc = torch.nn.Identity()
        self._network.load_state_dict(load_file(settings.weights))
        self._network.eval()
        if settings.number_format == "bfloat16":
            self._dtype = torch.bfloat16
            self._network.to(dtype=self._dtype, memory_format=torch.channels_last)
        self._decoders = ThreadPoolExecutor(settings.threads)
        for batch in (1, settings.max_batch):
            self._features(torch.zeros(batch, 3, self._size, self._size, dtype=torch.uint8))

    def embed(self, jpegs: list[bytes]) -> npt.NDArray[np.float32]:
        """Return features (B, D)."""
        images = list(self._decoders.map(self._decode, jpegs)) if len(jpegs) > 1 else [self._decode(jpegs[0])]
        return self._features(torch.cat(images))

    def _decode(self, jpeg: bytes) -> Tensor:
        """Decode an image to (1, 3, S, S) uint8."""
        image = torch.from_numpy(simplejpeg.decode_jpeg(jpeg, "RGB")).permute(2, 0, 1)[None]
        return interpolate(image, (self._size, self._size), mode="bilinear", antialias=True, align_corners=False)

    @torch.inference_mode()
    def _features(self, images: Tensor) -> npt.NDArray[np.float32]:
        pixels = images.float().sub_(MEAN).div_(STD)
        if self._dtype == torch.bfloat16:
            pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
        else:
            pixels = pixels.contiguous()
        features: npt.NDArray[np.float32] = self._network(pixels).float().numpy()
        return features
