"""Names of shards, and patterns of names."""

from pathlib import Path

import pytest

from manyview._uploads.shards.shard_paths import expand, is_shard


@pytest.mark.parametrize(
    "name", ["a.tar", "A.TAR", "a.tgz", "a.tar.gz", "sa_000.Tar.Gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"]
)
def test_a_shard_is_known_by_its_name(name: str) -> None:
    assert is_shard(Path("somewhere") / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.gz", "tar", "a.tar.jpg", "a.start", "a.json.gz"])
def test_other_files_are_no_shards(name: str) -> None:
    assert not is_shard(Path("shards.tar") / name)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{9..11}.tar", ["s-9.tar", "s-10.tar", "s-11.tar"]),
        ("s-{08..10}.tar", ["s-08.tar", "s-09.tar", "s-10.tar"]),
        ("s-{001..2}.tar", ["s-001.tar", "s-002.tar"]),
        ("s-{2..0}.tar", ["s-2.tar", "s-1.tar", "s-0.tar"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("s-{0..10..5}.tar", ["s-0.tar", "s-5.tar", "s-10.tar"]),
        ("{a,b{1,2}}.tar", ["a.tar", "b1.tar", "b2.tar"]),
        ("{one}.tar", ["{one}.tar"]),
        ("{one{1,2}}.tar", ["{one1}.tar", "{one2}.tar"]),
        ("{1,2}{.tar", ["1{.tar", "2{.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces_stand_for_several_names(pattern: str, names: list[str], tmp_path: Path) -> None:
    assert expand(tmp_path / pattern) == [tmp_path / name for name in names]


def test_wildcards_stand_for_the_files_that_exist(tmp_path: Path) -> None:
    for name in ("b-1.tar", "b-0.tar", "c-0.tar.gz", "sub/b-2.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand(f"{tmp_path}/b-*.tar") == [tmp_path / "b-0.tar", tmp_path / "b-1.tar"]
    assert expand(f"{tmp_path}/**/b-?.tar") == [tmp_path / name for name in ("b-0.tar", "b-1.tar", "sub/b-2.tar")]
    assert expand(f"{tmp_path}/{{b-[1],c-*}}.tar*") == [tmp_path / "b-1.tar", tmp_path / "c-0.tar.gz"]
    assert expand(f"{tmp_path}/d-*.tar") == [tmp_path / "d-*.tar"]


@pytest.mark.parametrize("name", ["photos [2024].tar", "{000..002}.tar", "what?.tar", "http:"])
def test_a_file_that_exists_is_itself_whatever_its_name_looks_like(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert expand(tmp_path / name) == [tmp_path / name]


def test_the_prefix_of_a_local_address_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    for address in (f"file:{tmp_path}/a.tar", f"file://{tmp_path}/a.tar", f"file:{tmp_path}/{{a,b}}.tar"):
        assert expand(address)[0] == tmp_path / "a.tar"


@pytest.mark.parametrize("address", ["https://example.org/a.tar", "s3://bucket/{0..3}.tar", "pipe:cat a.tar"])
def test_an_address_on_a_network_is_refused_with_a_hint(address: str) -> None:
    with pytest.raises(ValueError, match="is not a local path: download the files first"):
        expand(address)


def test_a_range_that_would_never_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"s\{0..999\}.* stands for more than 1,000,000 names"):
        expand("s{0..999}{0..999}{0..999}.tar")
    with pytest.raises(ValueError, match=r"\{0..99999999\} stands for more than 1,000,000 names"):
        expand("s-{0..99999999}.tar")
