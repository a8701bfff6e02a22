"""A law: every member of a tar file is stored, refused, a label of an image, or counted by its name."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.samples import samples
from manyview._uploads.skipped import SkippedCount

SAMPLES = st.sampled_from(["0", "1", "train/0", "./1", "a.b/0", "../0", ".hidden", "__MACOSX/0"])
RESTS = st.sampled_from(["jpg", "PNG", "x.jpg", "x.png", "cls", "x.cls", "txt", "json", "x.json", "npy", "x", ""])
CONTENTS = st.sampled_from([b"", b"7", b"{", b'{"label": 1}', b'{"key": "k"}', b"\xff", b"a b\nc", b"x" * 101])
NAMES = st.tuples(SAMPLES, RESTS).map(lambda parts: ".".join(filter(None, parts)))
LINKS = st.tuples(st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]), NAMES)
MEMBERS = st.lists(st.tuples(NAMES, CONTENTS | LINKS), max_size=15)
IMAGES = ("jpg", "png")
LABELS = ("cls", "txt", "json")


def take(path: Path, skipped: SkippedCount) -> list[EncodedImage]:
    return list(samples(path, "a.tar", skipped, max_image_bytes=100, choice=MemberChoice()))


def kind(name: str) -> str:
    return name.rpartition(".")[2].lower()


def sample(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def write(path: Path, members: Sequence[tuple[str, bytes | tuple[bytes, str]]], mode: str) -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@settings(deadline=None, max_examples=60)
@given(members=MEMBERS, mode=st.sampled_from(["w", "w:gz"]))
def test_every_member_is_stored_refused_a_label_or_counted(
    members: list[tuple[str, bytes | tuple[bytes, str]]], mode: str
) -> None:
    skipped = SkippedCount()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tar")
        write(path, members, mode)
        images = take(path, skipped)
        counted = Counter(name.removeprefix(f"{path}:") for files in skipped.summary() for name in files.names)
    rest = Counter(name for name, _ in members)
    assert counted <= rest
    rest -= counted
    image_names = Counter({name: number for name, number in rest.items() if kind(name) in IMAGES})
    assert len(images) == image_names.total()
    with_images = {sample(name) for name in image_names}
    assert all(kind(name) in LABELS and sample(name) in with_images for name in rest - image_names)
    assert all(image.data or image.error for image in images)


@settings(deadline=None, max_examples=60)
@given(
    members=st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=8),
    cut=st.integers(0, 20_000),
    noise=st.binary(max_size=600),
    at=st.integers(0, 20_000),
)
def test_a_damaged_shard_gives_what_can_be_read_and_says_so(
    members: list[tuple[str, bytes]], cut: int, noise: bytes, at: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tar")
        write(path, members, "w")
        whole = path.read_bytes()
        with tarfile.open(path) as tar:
            ends = {member.offset for member in tar} | {tar.offset}
        before = len(take(path, SkippedCount()))
        path.write_bytes(whole[:cut])
        after = take(path, SkippedCount())
        is_reported = any(image.error and image.error.reason == "SHARD_UNREADABLE" for image in after)
        assert len(after) <= before + is_reported
        # A file that ends between two members lacks only the end marker, which some programs never write.
        assert is_reported or cut in ends - {0} or cut >= max(ends)
        path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
        assert len(take(path, SkippedCount())) <= len(whole)
