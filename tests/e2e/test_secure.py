"""A server behind TLS and a token, reached with nothing but the constructor's parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import manyview
from support.service.certificate import make_certificate
from support.service.harness import ServerProcess, jpeg

TOKEN = "correct-horse-battery-staple"
UNUSED = ("--fork-workers", "off")
"""No test here needs a worker."""
QUICK = manyview.Deadlines(unary_s=2.0, reconnect_s=2.0)


def test_a_token_and_tls_let_in_who_has_both(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    server = new_server("--tls-cert", str(cert), "--tls-key", str(key), "--token-file", str(token_file), *UNUSED)
    server.start()
    with manyview.Client(server.address, token=TOKEN, tls=cert) as client:
        assert client.health() == "SERVING"
        dataset = client.upload([jpeg(seed=seed) for seed in range(3)], dataset="secret")
        assert dataset.num_images == 3
        assert "backbones/resnet18" in {model.name for model in client.models()}
    for token in ("wrong", TOKEN.upper(), TOKEN[:-1], None):
        with manyview.Client(server.address, token=token, tls=cert, deadlines=QUICK) as stranger:
            assert stranger.health() == "SERVING", "health needs no token"
            with pytest.raises(manyview.Unauthenticated) as caught:
                stranger.dataset("secret")
            assert caught.value.reason == "TOKEN_INVALID"
            assert TOKEN not in str(caught.value)
    with manyview.Client(server.address, token=TOKEN, deadlines=QUICK) as plain, pytest.raises(manyview.Unavailable):
        plain.datasets()
    other, _ = make_certificate(tmp_path)
    with (
        manyview.Client(server.address, token=TOKEN, tls=other, deadlines=QUICK) as mistaken,
        pytest.raises(manyview.Unavailable, match="no manyview server answered"),
    ):
        mistaken.datasets()
    assert server.stop() == 0
    assert TOKEN not in server.log.read_text()


def test_a_server_reached_under_another_name_is_known_by_the_one_in_its_certificate(
    new_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = make_certificate(tmp_path, "DNS:gpu-box.example")
    server = new_server("--tls-cert", str(cert), "--tls-key", str(key), *UNUSED)
    server.start()
    with (
        manyview.Client(server.address, tls=cert, deadlines=QUICK) as mistaken,
        pytest.raises(manyview.Unavailable),
    ):
        mistaken.health()
    options = manyview.TLSOptions(ca=cert, server_name="gpu-box.example")
    with manyview.Client(server.address, tls=options) as client:
        assert client.health() == "SERVING"
    monkeypatch.setenv("MANYVIEW_TLS_CA", str(cert))
    monkeypatch.setenv("MANYVIEW_TLS_SERVER_NAME", "gpu-box.example")
    with manyview.Client(server.address) as client:
        assert client.health() == "SERVING"
