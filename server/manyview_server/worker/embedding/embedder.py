"""The embedder: one process per device that embeds images for all callers.

On a CPU, each of n threads decodes and embeds, with single-threaded kernels. So no thread waits for another after each
layer, which keeps the rate when other processes use some of the cores (two OpenMP threads fall to half of their rate
then). One more thread has kernels that use several cores. It embeds an image that comes while there is no other one.
With a GPU, all threads decode, and two more take turns in feeding it.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt
import torch

from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.link.decode_notes import FORWARD, MODEL, DecodeNotes
from manyview_server.link.frames import MessageTooLarge
from manyview_server.messages.embedding import CancelEmbed, EmbedImages, RowFailed, SetThreads, StartEmbedding
from manyview_server.messages.message import Message
from manyview_server.worker.channel import WorkerChannel
from manyview_server.worker.embedding.embed_requests import DecodedRow, EmbedRequest
from manyview_server.worker.embedding.idle_heap import IdleHeap
from manyview_server.worker.embedding.model_cache import EmbeddingModel, ModelCache, ModelUnavailable
from manyview_server.worker.embedding.scheduler import DecodeTask, ForwardTask, Scheduler
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder

CPU_MAX_BATCH = 32
"""ResNet-18 at 64 px takes 3.1 ms of a core for each image of such a batch, and 3.4 in a batch of 16. Batches of larger
images are smaller (see `scheduler`)."""
SINGLE_CORES = 4
"""The most cores that embed a single image. Two have been measured."""
CUDA_MAX_BATCH = 128
CPU_SMALLEST_SHARE = 4
"""A thread takes at least this many rows of an incomplete batch."""
CPU_BULK_BATCH = 4
"""The most stored images in a batch. It is 3 % slower than 16, and callers wait a quarter as long for a thread."""
CUDA_LANES = 2

Rows = npt.NDArray[np.float32]


def run(channel: WorkerChannel) -> None:
    """Serve until the link ends. The first message is a StartEmbedding."""
    start = channel.receive()
    assert isinstance(start, StartEmbedding)
    torch.set_num_threads(1)
    embedder = Embedder(channel, torch.device(start.device), start.num_threads, channel.notes)
    embedder.start()
    heap = IdleHeap()
    heap.start()
    while True:
        embedder.handle(channel.receive())
        heap.used()


class Embedder:
    """The threads that decode and embed what the scheduler gives them."""

    def __init__(
        self, channel: WorkerChannel, device: torch.device, num_threads: int, notes: DecodeNotes | None = None
    ) -> None:
        self._channel = channel
        self._notes = notes or DecodeNotes.private()
        self._decoder = GuardedDecoder("embedder.decode", self._notes, DecodeMemory())
        self._device = device
        self._models = ModelCache(device)
        self._on_cpu = device.type == "cpu"
        self._allocating = threading.Lock()
        self._num_threads = num_threads
        self._num_started = 0
        self._has_single_thread = False
        self._scheduler = (
            Scheduler(CPU_MAX_BATCH, CPU_BULK_BATCH, num_threads, smallest_share=CPU_SMALLEST_SHARE)
            if self._on_cpu
            else Scheduler(CUDA_MAX_BATCH, CUDA_MAX_BATCH, num_threads, smallest_share=CUDA_MAX_BATCH)
        )

    def start(self) -> None:
        """Start the threads. A `SetThreads` message pauses some of them, or adds more."""
        self._start_threads(self._num_threads)
        for number in range(0 if self._on_cpu else CUDA_LANES):
            # The scheduler never pauses thread 0.
            self._spawn(f"device-{number}", 0, decodes=False, embeds=True)

    def handle(self, message: Message) -> None:
        """Act on a message from the front."""
        match message:
            case EmbedImages():
                self._accept(EmbedRequest(message))
            case CancelEmbed():
                if request := self._scheduler.cancel(message.request_id):
                    # This is a sign of life: the front would take silence for a hang.
                    self._channel.send(request.failed("CANCELLED", "CANCELLED", "the caller has gone"))
            case SetThreads():
                num_threads = max(1, message.num_threads)
                self._start_threads(num_threads)
                self._scheduler.set_threads(num_threads)

    def _start_threads(self, num_threads: int) -> None:
        """Start those of the first `num_threads` threads that are not running yet, and the one for single images."""
        if self._on_cpu and num_threads > 1 and not self._has_single_thread:
            self._has_single_thread = True
            self._start_single(min(SINGLE_CORES, num_threads))
        for number in range(self._num_started, num_threads):
            self._spawn(f"embed-{number}", number, decodes=True, embeds=self._on_cpu)
        self._num_started = max(self._num_started, num_threads)

    def _accept(self, request: EmbedRequest) -> None:
        if request.num_images:
            self._scheduler.add(request)
        else:
            self._channel.send(request.failed("INVALID_ARGUMENT", "NO_IMAGES", "a request needs an image"))

    def _start_single(self, num_cores: int) -> None:
        """Start the thread that embeds single images, with kernels that use `num_cores` cores."""
        is_set = threading.Event()

        def work() -> None:
            _use_cores(num_cores)
            is_set.set()
            while True:
                task = self._scheduler.take_single()
                if (row := self._decoded(task)) is not None:
                    with self._notes.task(FORWARD):
                        self._forward(ForwardTask(key=task.request.key, rows=[row]))

        threading.Thread(target=work, name="embed-single", daemon=True).start()
        is_set.wait()
        torch.set_num_threads(1)  # MKL has one number for all threads, and it is the last one that was set

    def _spawn(self, name: str, number: int, *, decodes: bool, embeds: bool) -> None:
        def work() -> None:
            _use_cores(1)
            while True:
                match self._scheduler.take(number, decodes=decodes, embeds=embeds):
                    case DecodeTask() as task:
                        if (row := self._decoded(task)) is not None:
                            self._scheduler.decoded(row)
                    case ForwardTask() as task:
                        with self._notes.task(FORWARD):
                            self._forward(task)

        threading.Thread(target=work, name=name, daemon=True).start()

    def _decoded(self, task: DecodeTask) -> DecodedRow | None:
        """Decode an image. Return None if its row needs no pass, because it or its request has failed."""
        request = task.request
        if self._is_late(request) or (model := self._model_for(request)) is None:
            return None
        try:
            data, number = request.image(task.row), request.message.request_id
            image = self._decoder.decode(data, model.preprocessing, model.rule, request=number, item=task.row)
        except DecodeError as error:
            request.last_decode = time.monotonic()
            request.errors.append(RowFailed(row=task.row, reason=error.reason, message=str(error)))
            self._rows_done(request, 1, model)
            return None
        request.last_decode = time.monotonic()
        return DecodedRow(request=request, row=task.row, pixels=image.pixels)

    def _forward(self, task: ForwardTask) -> None:
        rows = [row for row in task.rows if not self._is_late(row.request)]
        if not rows or (model := self._model_for(rows[0].request)) is None:
            return
        try:
            self._embed(model, rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            if len(rows) == 1:
                text = f"the device has no memory for one image of {model.preprocessing.image_size} pixels"
                self._fail(rows[0].request, "RESOURCE_EXHAUSTED", "DEVICE_OUT_OF_MEMORY", text)
                return
            half = len(rows) // 2
            self._forward(ForwardTask(key=task.key, rows=rows[:half]))
            self._forward(ForwardTask(key=task.key, rows=rows[half:]))

    def _embed(self, model: EmbeddingModel, rows: list[DecodedRow]) -> None:
        start, start_cpu = time.monotonic(), time.thread_time()
        # Stack the images as they are laid out in memory, pixel by pixel.
        images = torch.stack([row.pixels.permute(1, 2, 0) for row in rows]).permute(0, 3, 1, 2)  # (B, 3, o, o)
        features = model.embed(images).numpy()  # (B, D)
        forward_s = time.monotonic() - start
        if self._on_cpu:
            # The time of the core, because a pass takes longer while other processes use the cores.
            self._scheduler.passed(rows[0].request.key, len(rows), time.thread_time() - start_cpu)
        by_request: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            by_request.setdefault(row.request.message.request_id, []).append(at)
        for places in by_request.values():
            request = rows[places[0]].request
            self._rows_of(request, model)[[rows[at].row for at in places]] = features[places]
            request.forward_s = max(request.forward_s, forward_s)
            request.batch_images = max(request.batch_images, len(rows))
            self._rows_done(request, len(places), model)

    def _rows_done(self, request: EmbedRequest, num_rows: int, model: EmbeddingModel) -> None:
        if self._scheduler.rows_done(request, num_rows):
            self._rows_of(request, model)  # all NaN if no image could be decoded
            try:
                self._channel.send(request.answer(model.token_dim))
            except MessageTooLarge as error:
                self._channel.send(request.failed(error.code, error.reason, error.message))

    def _rows_of(self, request: EmbedRequest, model: EmbeddingModel) -> Rows:
        with self._allocating:
            if request.rows is None:
                request.rows = np.full((request.num_images, model.feature_dim), np.nan, np.float32)
            return request.rows

    def _model_for(self, request: EmbedRequest) -> EmbeddingModel | None:
        """Return the model of a request, or None if it cannot be loaded. The request has failed then."""
        try:
            with self._notes.task(MODEL, request=request.message.request_id):
                return self._models.get(request.key)
        except ModelUnavailable as error:
            self._fail(request, error.code, error.reason, str(error))
            return None

    def _is_late(self, request: EmbedRequest) -> bool:
        if request.has_expired and not request.is_over:
            self._fail(
                request, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "the request's time passed before it was embedded"
            )
        return request.is_over

    def _fail(self, request: EmbedRequest, code: str, reason: str, message: str) -> None:
        if self._scheduler.give_up(request):
            self._channel.send(request.failed(code, reason, message))


def _use_cores(num_cores: int) -> None:
    """Let torch's kernels use so many cores when this thread calls them.

    torch keeps the number per thread from the thread's first use on. Until then it is that of the thread that set it
    last, so it is read at once.
    """
    torch.set_num_threads(num_cores)
    assert torch.get_num_threads() == num_cores
