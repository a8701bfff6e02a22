"""The messages to a job's owner about its images: those that cannot be read, and those that are nearly black."""

from __future__ import annotations

from collections.abc import Sequence

from manyview_server.counted_noun import number_of
from manyview_server.messages.training import ImageUnreadable, LogWritten
from manyview_server.worker.channel import Sender
from manyview_server.worker.job_images.findings import DarkImage, Findings, Unreadable

MAX_UNREADABLE_REPORTED = 1000
"""The most unreadable images that are reported one by one. The log counts all of them."""


class ImageLog:
    """Reports what decoding finds: each unreadable image at once, and lines for the log between steps."""

    def __init__(self, channel: Sender) -> None:
        self._channel = channel
        self._num_reported = 0
        self._num_unreadable = 0
        self._num_dark = 0

    def add(self, image: Unreadable) -> None:
        """Report to the front that an image has no pixels."""
        if self._num_reported < MAX_UNREADABLE_REPORTED:
            self._num_reported += 1
            message = ImageUnreadable(image_id=image.image_id, reason=image.reason, message=image.message)
            self._channel.send(message)

    def write(self, findings: Findings, step: int, epoch: int) -> None:
        """Write a line for each kind of image of which more were found since the last call."""
        lines = []
        if findings.num_unreadable > self._num_unreadable:
            self._num_unreadable = findings.num_unreadable
            lines.append(unreadable_line(findings))
        if len(findings.dark) > self._num_dark:
            self._num_dark = len(findings.dark)
            lines.append(dark_line(findings.dark))
        for text in lines:
            self._channel.send(LogWritten(step=step, epoch=epoch, level="warning", text=text))


def unreadable_line(findings: Findings) -> str:
    """Return one line about the images that cannot be read. Images that were not needed yet may bring more."""
    words = number_of(findings.num_unreadable, "image cannot be read and is", "images cannot be read and are")
    num_tried, num_images = findings.num_read + findings.num_unreadable, len(findings.sizes)
    so_far = f"; {num_tried:,} of {num_images:,} were looked at so far" if num_tried < num_images else ""
    return f"{words} left out{so_far}"


def dark_line(images: Sequence[DarkImage]) -> str:
    """Return one line about images of 16 bits whose values are small."""
    most, first = max(image.used_bits for image in images), f"id:{images[0].image_id:016x}"
    count = number_of(len(images), "image has", "images have")
    return (
        f"{count} 16 bits per channel and no value above {2**most - 1:,} of 65,535, which is nearly black to the "
        f"network: multiply the values by {2 ** (16 - most)} and upload them again; the first such image is {first}"
    )
