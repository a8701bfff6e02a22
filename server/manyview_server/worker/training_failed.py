"""Why a training run cannot go on."""

from __future__ import annotations


class TrainingFailed(Exception):
    """Training cannot go on. `reason` is UPPER_SNAKE, `str()` a sentence, `hint` what the job's owner can do."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint
