"""The parts around the services: health, reflection, TLS, token, malformed requests, hidden errors, the port."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from manyview.v1 import dataset_service_pb2, embed_service_pb2, metrics_service_pb2, model_service_pb2
from manyview_server.config import ServeSettings, SettingsError
from manyview_server.front.server import SERVICE_NAMES, Server, channel_options, read_token

Health = health_pb2.HealthCheckResponse
INFO = "/manyview.v1.ModelService/GetServerInfo"


async def health(front: Any, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(front.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(response.status)


async def test_health_is_told_for_the_whole_and_for_each_service_until_the_drain(front: Any) -> None:
    assert len(SERVICE_NAMES) == 5
    assert {await health(front, name) for name in ("", *SERVICE_NAMES)} == {Health.SERVING}
    await front.server.begin_drain()
    assert {await health(front, name) for name in ("", *SERVICE_NAMES)} == {Health.NOT_SERVING}


async def test_a_large_request_to_health_or_reflection_is_refused_before_it_is_parsed(front: Any) -> None:
    bomb = b"\x0a\x00" * 500_000  # half a million times the name of a service
    check = front.channel.unary_unary("/grpc.health.v1.Health/Check")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(bomb)
    assert refused.value.code() != grpc.StatusCode.OK
    watch = front.channel.unary_stream("/grpc.health.v1.Health/Watch")(bomb)
    with pytest.raises(grpc.aio.AioRpcError):
        await watch.read()
    reflect = front.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")([bomb])
    with pytest.raises(grpc.aio.AioRpcError):
        await reflect.read()
    assert await health(front) == Health.SERVING


async def test_a_drain_waits_for_calls_and_not_for_streams_without_an_end(
    front: Any, refused: Any, png: Any, image: Any
) -> None:
    watch = health_pb2_grpc.HealthStub(front.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == Health.SERVING
    reflecting = reflection_pb2_grpc.ServerReflectionStub(front.channel).ServerReflectionInfo()
    await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await reflecting.read()
    front.embedder.gate = asyncio.Event()
    request = embed_service_pb2.EmbedRequest(model="backbones/resnet18", images=[image(png())])
    embed = asyncio.ensure_future(front.embed.Embed(request))
    async with asyncio.timeout(5):
        while not front.embedder.running:
            await asyncio.sleep(0.01)
    await front.server.begin_drain()
    assert (await watch.read()).status == Health.NOT_SERVING
    quiet = asyncio.create_task(front.server.until_quiet())
    error = await refused(front.datasets.ListDatasets(dataset_service_pb2.ListDatasetsRequest()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert error.retry_after_s > 0
    assert not quiet.done()
    front.embedder.gate.set()
    async with asyncio.timeout(5):
        await embed
        await quiet


async def test_reflection_lists_every_service(front: Any) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(front.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await call.read()).list_services_response.service}
    assert {*SERVICE_NAMES, "grpc.health.v1.Health"} <= listed
    await call.done_writing()


async def test_bytes_that_are_no_message_are_an_invalid_argument(front: Any, refused: Any) -> None:
    unary = front.channel.unary_unary("/manyview.v1.DatasetService/GetDataset")
    error = await refused(unary(b"\xff\xff\xff"))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    stream = front.channel.unary_stream("/manyview.v1.MetricsService/SubscribeMetrics")
    assert (await refused(stream(b"\xff\xff\xff").read())).reason == "MALFORMED_REQUEST"
    bidi = front.channel.stream_stream("/manyview.v1.DatasetService/UploadImages")()
    await bidi.write(b"\xff\xff\xff")
    await bidi.done_writing()
    response = dataset_service_pb2.UploadImagesResponse.FromString(await bidi.read())
    assert response.error.reason == "MALFORMED_REQUEST"


async def test_an_unexpected_error_shows_an_id_and_nothing_else(
    front: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def get(dataset_id: str) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(front.store.datasets, "get", get)
    error = await refused(front.datasets.GetDataset(dataset_service_pb2.GetDatasetRequest(name="datasets/a")))
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in error.text
    assert error.metadata["error_id"] in error.text
    assert error.metadata["error_id"] in caplog.text
    assert "/secret/path" in caplog.text


async def test_a_message_over_the_limit_is_refused_by_the_transport(front: Any) -> None:
    call = front.channel.unary_unary(INFO)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bytes(37 << 20))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_two_servers_do_not_share_a_port(front: Any, tmp_path: Path) -> None:
    settings = ServeSettings(listen=front.server.address, data=tmp_path / "other")
    second = Server(settings, front.server.backend, "1", 0.0)
    with pytest.raises(SettingsError, match="cannot listen"):
        await second.start()
    await second.stop(0)


def test_streams_and_pings_are_bounded() -> None:
    options = dict(channel_options(ServeSettings(data=Path("x"), max_message_bytes=40 << 20)))
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.max_concurrent_streams"] == 256
    assert options["grpc.max_receive_message_length"] == 40 << 20
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 10_000
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 10_000, "the SDK pings every 20 s"


def test_how_soon_a_dead_connection_is_noticed_can_be_chosen() -> None:
    options = dict(channel_options(ServeSettings(data=Path("x"), keepalive_s=1.5, keepalive_timeout_s=3)))
    assert options["grpc.keepalive_time_ms"] == 1500
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 3000


class TestToken:
    """A server that asks for a token."""

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, object]:
        (tmp_path / "token").write_text("s3cret\n")
        return {"token_file": tmp_path / "token"}

    @pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "s3cret"),)])
    async def test_calls_without_it_are_refused(self, front: Any, refused: Any, metadata: Any) -> None:
        error = await refused(front.models.GetServerInfo(model_service_pb2.GetServerInfoRequest(), metadata=metadata))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
        subscribe = metrics_service_pb2.SubscribeMetricsRequest(train_job="trainJobs/j")
        stream = front.metrics.SubscribeMetrics(subscribe, metadata=metadata)
        assert (await refused(stream.read())).reason == "TOKEN_INVALID"

    async def test_an_upload_without_it_is_refused_with_the_right_status(self, front: Any) -> None:
        for _ in range(10):
            call = front.datasets.UploadImages()
            header = dataset_service_pb2.UploadHeader(dataset="datasets/a", upload_id="u")
            with contextlib.suppress(grpc.aio.AioRpcError):  # the status may be here before the header is out
                await call.write(dataset_service_pb2.UploadImagesRequest(header=header))
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED

    async def test_calls_with_it_pass_and_health_needs_none(self, front: Any) -> None:
        metadata = (("authorization", "Bearer s3cret"),)
        info = await front.models.GetServerInfo(model_service_pb2.GetServerInfoRequest(), metadata=metadata)
        assert info.version == "1.2.3"
        assert await health(front) == Health.SERVING


@pytest.mark.parametrize("text", [None, "", "\n", "tökén"])
def test_a_token_file_without_a_token_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match="token"):
        read_token(path)


class TestTls:
    """A server with a certificate of its own."""

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, object]:
        key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True)
        return {"tls_key": key, "tls_cert": cert}

    async def test_the_server_speaks_tls_alone(self, front: Any, options: dict[str, Path]) -> None:
        credentials = grpc.ssl_channel_credentials(options["tls_cert"].read_bytes())
        async with grpc.aio.secure_channel(front.server.address, credentials) as channel:
            reply = await channel.unary_unary(INFO, bytes, bytes)(b"", timeout=10)
        assert model_service_pb2.GetServerInfoResponse.FromString(reply).version == "1.2.3"
        with pytest.raises(grpc.aio.AioRpcError):
            await front.models.GetServerInfo(model_service_pb2.GetServerInfoRequest(), timeout=2)


def test_the_front_imports_neither_torch_nor_an_image_library() -> None:
    code = (
        "import sys, manyview_server.__main__, manyview_server.front.app;"
        "print([m for m in ('torch', 'torchvision', 'PIL', 'simplejpeg') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50)
    assert result.stdout.strip() == "[]"
