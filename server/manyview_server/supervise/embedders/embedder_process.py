"""One embedder process, from its first request to its end: who waits for which answer, and why it was killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from manyview_server.errors import error_class
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.embedding import CancelEmbed, EmbedDone, EmbedFailed, EmbedImages
from manyview_server.messages.message import Message
from manyview_server.supervise.decode_watch import LOOK_S, DecodeWatch, SlowDecode, TaskWatch
from manyview_server.supervise.embedders.open_requests import OpenRequest, OpenRequests
from manyview_server.supervise.process import WorkerProcess
from manyview_server.supervise.slow_images import SlowImages
from manyview_server.supervise.worker_call import WorkerCall
from manyview_server.system import awake_time

log = logging.getLogger(__name__)


class EmbedderProcess:
    """A process that has started. `listen` and `watch` must run until it has ended."""

    def __init__(
        self,
        process: WorkerProcess,
        worker: WorkerCall,
        *,
        silence_s: float,
        decode_cpu_s: float,
        slow_images: SlowImages,
        on_answer: Callable[[], None],
    ) -> None:
        """`silence_s` and `decode_cpu_s`: see `EmbedderLimits`. `on_answer` is called for each answer that is not about
        a cancelled request."""
        self.process = process
        self.requests = OpenRequests()
        self.was_replaced = False
        """True if it was killed because of an image that took too long to decode. No request is to blame then."""
        self._worker = worker
        self._silence_s = silence_s
        self._decodes = DecodeWatch(process.pid, process.notes, decode_cpu_s)
        self._tasks = TaskWatch(process.notes, silence_s)
        self._slow_images = slow_images
        self._on_answer = on_answer
        self._asked_at: float | None = None
        """When the process was asked, unless it has given a sign of life since then."""
        self._suspects: set[bytes] | None = None
        """The suspects, if the process was killed because it was stuck."""
        self._has_ended = False

    async def ask(self, message: EmbedImages, fingerprint: bytes, image_ids: tuple[int, ...]) -> EmbedDone:
        """Return the answer of the process. Raises what `requests.fail` is given when it dies."""
        if self._asked_at is None:
            self._asked_at = awake_time.now()
        answer: asyncio.Future[EmbedDone] = asyncio.get_running_loop().create_future()
        request = OpenRequest(message.request_id, fingerprint, image_ids, answer)
        self.requests.add(request)
        try:
            await self.send(message)
            return await answer
        except asyncio.CancelledError:
            self._worker.spawn(self.send(CancelEmbed(request_id=message.request_id)))
            raise
        finally:
            self.requests.leave(request)

    async def send(self, message: Message) -> None:
        """Send a message. If the process is gone, `listen` notices that too."""
        with suppress(LinkClosed):
            await self.process.link.send(message)

    async def listen(self) -> str:
        """Hand out answers until the link ends, and return why it ended."""
        try:
            while True:
                self._answer(await self.process.link.receive())
        except LinkClosed:
            return "it closed its link"
        except Exception as error:  # whatever a broken process sends, its callers get an error
            self.process.kill()
            return repr(error)
        finally:
            self._has_ended = True

    async def watch(self) -> None:
        """Kill the process when an image, another task, or its first sign of life takes too long.

        Only the work of the process counts, not who waits for it: callers come and go while a decoder is stuck.
        """
        while self.process.running:
            with suppress(TimeoutError):
                async with awake_time.timeout(min(LOOK_S, self._silence_s / 8)):
                    await self.process.wait()
            if not self.process.running or self._has_ended:
                return
            if slow := self._decodes.look():
                self._replace(slow)
                return
            overdue = self._tasks.look()
            if overdue or self._is_silent():
                log.error("embedder is stuck", extra={"requests": len(self.requests.waiting)})
                self._suspects = self.requests.suspects(overdue) if overdue else set()
                self.process.kill()
                return

    def suspects(self) -> set[bytes]:
        """Return the fingerprints of the requests of which one must have caused the death of the process."""
        return self.requests.suspects(self.process.notes.read()) if self._suspects is None else self._suspects

    def _is_silent(self) -> bool:
        """Has the process been asked, and neither answered nor done anything for too long?"""
        if self._asked_at is None:
            return False
        return awake_time.now() - max(self._asked_at, self._tasks.last_change) > self._silence_s

    def _replace(self, decodes: Iterable[SlowDecode]) -> None:
        """Kill the process, and refuse the images of these decodes from now on. No other image is refused for it."""
        for slow in decodes:
            image_id = self.requests.image_of(slow.note)
            if image_id is not None:
                self._slow_images.add(image_id)
            known = {"image": "unknown" if image_id is None else f"{image_id:016x}", "request": slow.note.request}
            log.error("an image takes the embedder too long to decode", extra={**known, "cpu_s": round(slow.cpu_s, 1)})
        self.was_replaced = True
        self.process.kill()

    def _answer(self, message: Message) -> None:
        if not isinstance(message, EmbedDone | EmbedFailed):
            raise LinkCorrupt(f"an embedder does not send {type(message).__name__}")
        self._asked_at = awake_time.now() if self.requests.waiting.keys() - {message.request_id} else None
        if not (isinstance(message, EmbedFailed) and message.code == "CANCELLED"):
            self._on_answer()
        request = self.requests.waiting.get(message.request_id)
        if request is None or request.answer.done():
            return
        if isinstance(message, EmbedDone):
            request.answer.set_result(message)
        else:
            request.answer.set_exception(error_class(message.code)(message.reason, message.message))
