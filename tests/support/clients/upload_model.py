"""The promises of the upload protocol in a few lines, for one upload to a data set of its own: the oracle of tests."""

from __future__ import annotations


class UploadModel:
    """Images are numbers, negative ones such as are refused. Answers are outcomes by name, or the error's reason."""

    def __init__(self) -> None:
        self.committed: list[tuple[list[int], list[str]]] = []
        self.stored: set[int] = set()
        self.finished = False
        self.num_images = 0

    @property
    def sent(self) -> list[int]:
        """All committed images in their order."""
        return [number for images, _ in self.committed for number in images]

    def append(self, number: int, images: list[int]) -> list[str] | str:
        """The answer to a batch of this number. Other images under a committed number: "UPLOAD_CHANGED", where one of
        them is new."""
        expected = len(self.committed) + 1
        if number < expected:
            before, outcomes = self.committed[number - 1]
            return outcomes if before == images else "UPLOAD_CHANGED"
        if self.finished:
            return "UPLOAD_FINISHED"
        if number > expected:
            return "SEQUENCE_GAP"
        outcomes = []
        for image in images:
            outcomes.append("REJECTED" if image < 0 else "DUPLICATE" if image in self.stored else "STORED")
            if image >= 0:
                self.stored.add(image)
        self.num_images += len(images)
        self.committed.append((images, outcomes))
        return outcomes

    def finish(self, num_images: int) -> str:
        """The answer to a finish with this count."""
        if num_images != self.num_images:
            return "FINISH_MISMATCH"
        self.finished = True
        return "FINISHED"
