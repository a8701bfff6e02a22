"""A method with images that are made up, whose steps are timed.

Shapes: B batch, S pixels on a side of a decoded image.
"""

from __future__ import annotations

import time

import torch

from manyview_server.learn import optimizers
from manyview_server.learn.methods import Moment, build_method
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import train_step
from manyview_server.learn.views import make_views
from manyview_server.worker.precision import Numerics
from manyview_server.worker.preprocess import Preprocess

TOTAL_STEPS = 1_000


class StepTrial:
    """Makes steps and embeds images as a trainer does, and times each."""

    def __init__(
        self, settings: TrainSettings, num_images: int, decode_size: int, numerics: Numerics, device: torch.device
    ) -> None:
        """`settings` must leave nothing open; see `TrainSettings.for_num_images`."""
        assert settings.batch_size is not None
        self.numerics = numerics
        self._settings = settings
        self._decode_size = decode_size
        self._device = device
        self._method = build_method(settings, num_images).to(device).to(memory_format=numerics.memory_format)
        self._optimizer = optimizers.build(settings.optimizer, self._method, settings.batch_size)
        self._num_steps = 0

    def step_s(self, batch_size: int) -> float:
        """Return the seconds of one step. The first step of a size takes longer than later ones."""
        images, sizes, image_ids = self._images(batch_size)
        settings, numerics = self._settings, self.numerics
        started_s = self._now_s()
        views = make_views(
            images,
            sizes,
            image_ids,
            settings.views,
            image_size=settings.image_size,
            seed=0,
            epoch=self._num_steps,
            dtype=numerics.dtype,
            memory_format=numerics.memory_format,
        )
        moment = Moment(step=self._num_steps % TOTAL_STEPS, total_steps=TOTAL_STEPS)
        ids = image_ids.to(self._device)
        train_step(self._method, self._optimizer, views, ids, moment, precision=numerics.precision)
        self._num_steps += 1
        return self._now_s() - started_s

    @torch.inference_mode()
    def embed_s(self, batch_size: int) -> float:
        """Return the seconds to embed one image in a batch of `batch_size`."""
        normalize = self._settings.views.normalize
        preprocess = Preprocess(self._settings.image_size, normalize.mean, normalize.std, self._device, torch.float32)
        images, _, _ = self._images(batch_size)
        started_s = self._now_s()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.numerics.precision == "bfloat16"):
            self._method.embed(preprocess(images))
        return (self._now_s() - started_s) / batch_size

    def _images(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return noise (B, 3, S, S) uint8 on the device, and the sizes and ids of its images on the CPU."""
        shape = (batch_size, 3, self._decode_size, self._decode_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device)
        sizes = torch.full((batch_size, 2), self._decode_size)
        return images, sizes, torch.arange(batch_size)

    def _now_s(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
