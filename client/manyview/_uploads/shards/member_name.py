"""The name of a member in WebDataset's notation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberName:
    """The parts of `train/22.05.JPG`: the sample `train/22`, the rest `05.JPG`, its stem `05` and its type `jpg`.

    WebDataset's rule: the sample ends at the first dot of the base name. A name without a dot has no rest.
    """

    sample: str
    rest: str

    @property
    def stem(self) -> str:
        return self.rest.rpartition(".")[0]

    @property
    def type(self) -> str:
        return self.rest.rpartition(".")[2].lower()


def split_name(name: str) -> MemberName:
    folder, slash, file = name.rpartition("/")
    stem, _, rest = file.partition(".")
    return MemberName(folder + slash + stem, rest)


def joined(sample: str, rest: str) -> str:
    """Return the sample's name with `rest` after a dot, or alone if there is no rest."""
    return f"{sample}.{rest}" if rest else sample


def is_hidden(name: str) -> bool:
    """Does a file or a folder of the name begin with a dot, or has macOS added it?"""
    return any((part[:1] == "." and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))
