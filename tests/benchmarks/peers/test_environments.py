"""Peers run with the versions of torch and of the decoder that manyview is tested with."""

from __future__ import annotations

import pytest
from benchmarks.peers.environments import PACKAGES, PINS, SHARED, pinned
from benchmarks.peers.plan import PEERS


def test_each_peer_has_packages_and_all_are_pinned() -> None:
    assert tuple(PACKAGES) == PEERS
    for packages in PACKAGES.values():
        assert all("==" in pinned(package) for package in (*packages, *SHARED))
    assert pinned("ray[serve]").startswith("ray[serve]==2.")


def test_the_network_and_the_decoder_are_those_of_manyview() -> None:
    tested = (PINS.parent / "dev.txt").read_text()
    for package in ("torch", "torchvision", "simplejpeg", "safetensors"):
        assert f"\n{pinned(package)} " in tested


def test_a_package_without_a_pin_is_named() -> None:
    with pytest.raises(SystemExit, match=r"peers\.txt pins no version of abacus"):
        pinned("abacus")
