"""WebDataset shards: tar files in which the members of one sample share a name up to the first dot of the base name.

A shard is read twice: first its names and its labels, which may lie far from their images, then its images. So a shard
of any size takes memory for its names alone. It may import `_types`, and its neighbors
`encoded_image`, `labels`, `signatures` and `skipped`.

- `shard_paths`: which files are shards, and the files that a pattern such as `shard-{000..010}.tar` stands for.
- `tar_members`: the members of a tar file, one after the other. `link_targets`: the bytes that links lead to.
- `member_name`: the parts of a member's name. `member_choice`: the members that the caller takes for image and label.
- `sample_text`: a member that may hold a label. `sample`: one sample, with the keys and labels of its images.
- `shard_index`: the first reading. `samples`: the second reading, which yields the images.
"""

from manyview._uploads.shards.samples import samples as samples
from manyview._uploads.shards.shard_paths import is_shard as is_shard
