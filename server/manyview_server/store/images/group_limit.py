"""The most that one group of batches can hold.

A start needs it to distinguish a crash from a database that does not match the data.
"""

from __future__ import annotations

from dataclasses import dataclass

# The most bytes of headers, padding, key and label of one image in a shard.
MAX_OVERHEAD_BYTES = 8 << 10
# The most shards that one group can start: one because the shard before has many bytes, and one because it has many
# images (see `shard_writers`).
MAX_NEW_SHARDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """The most images of a group, and the most bytes of their data."""

    images: int
    num_bytes: int

    @property
    def tail_bytes(self) -> int:
        """The most bytes that a group can add to a shard."""
        return self.num_bytes + self.images * MAX_OVERHEAD_BYTES


ANY_GROUP = GroupLimit(images=16 * 4096, num_bytes=512 << 20)
"""The largest limit that any settings allow."""
