"""The words that arguments and fields may be."""

from __future__ import annotations

from typing import Literal

JobState = Literal[
    "QUEUED",
    "STARTING",
    "RUNNING",
    "RECOVERING",
    "PAUSING",
    "PAUSED",
    "CANCELLING",
    "CANCELLED",
    "SUCCEEDED",
    "FAILED",
]
TERMINAL_STATES: frozenset[JobState] = frozenset({"CANCELLED", "SUCCEEDED", "FAILED"})

EventKind = Literal["scalars", "state", "checkpoint", "rollback", "alert", "log", "snapshot"]
LogLevel = Literal["INFO", "WARNING", "ERROR"]
ImageStatus = Literal["STORED", "REJECTED", "UNREADABLE"]
SkipReason = Literal[
    "HIDDEN",  # the name of the file, or of a folder above it, starts with a dot
    "NOT_AN_IMAGE",  # its first bytes belong to no image format
    "FORMAT_NOT_READ",  # an image of a format that the server does not read, such as HEIC
    "NOT_A_FILE",  # a socket, a pipe or a device
    "BROKEN_LINK",
    "LINK_VISITED",  # a link to a file or folder that has been found under another name
    "UNREADABLE_FILE",  # the operating system refused it
    "NO_IMAGE",  # a member of a sample that has no image
    "CAPTION",  # a text of a shard that is no label
    "OTHER_MEMBER",  # a member of a sample that is neither its image nor its label
    "LINK_IN_SHARD",  # a link to something outside of its shard
]
"""The reason why an upload passes over a file."""
HealthStatus = Literal["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
WeightsOrigin = Literal["trained", "file", "random"]
Crop = Literal["squash", "center"]
Interpolation = Literal["bilinear", "bicubic"]

Output = Literal["backbone", "projection", "class_token", "patch_mean", "class_and_patch_mean", "patch_tokens"]
DataType = Literal["float32", "float16"]
Metric = Literal["cosine", "euclidean"]
Strategy = Literal["random", "coreset", "minimum_distance", "typicality", "similarity"]
Balance = Literal["equal", "proportional"]
