"""The rest of the client: data sets, images, models, the server itself; many threads at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import manyview
from manyview.testing import FakeServer


def test_a_data_set_is_created_once_listed_and_deleted(client: manyview.Client, server: FakeServer) -> None:
    first = client.upload([b"a"], "pets")
    client.upload([b"b"], first)
    assert [(item.id, item.num_images) for item in client.datasets()] == [("pets", 2)]
    client.delete_dataset("datasets/pets")
    with pytest.raises(manyview.NotFound):
        client.dataset("pets")


def test_images_come_page_by_page_and_by_status(client: manyview.Client, server: FakeServer) -> None:
    server.state.rejects[b"bad"] = "ANIMATED"
    client.upload([b"1", b"2", b"bad", b"3", b"4", b"5"], "pets")
    listed = client.images("pets")
    assert [next(listed).key for _ in range(2)] == ["00000000", "00000001"]
    assert len(server.requests("ListImages")) == 1
    assert len(list(listed)) == 3
    (refused,) = client.images("pets", ["REJECTED"])
    assert (refused.status, refused.error) == ("REJECTED", manyview.ImageError(reason="ANIMATED", message="scripted"))
    assert [image.key for image in client.images("pets", "REJECTED")] == [refused.key]
    text = "statuses must be one of STORED, REJECTED, UNREADABLE, not 'UNREADABEL'; did you mean 'UNREADABLE'"
    with pytest.raises(ValueError, match=text):
        client.images("pets", ["unreadabel"])  # type: ignore[list-item]


def test_jobs_are_listed_by_their_states(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a"], "pets")
    for name in ("first", "second"):
        client.train("pets", job_id=name)
    server.finish_job("trainJobs/first")
    assert [job.id for job in client.jobs()] == ["second", "first"]
    assert [job.id for job in client.jobs("SUCCEEDED")] == ["first"]
    assert [job.id for job in client.jobs(["QUEUED", "FAILED"])] == ["second"]
    with pytest.raises(ValueError, match="did you mean 'SUCCEEDED'"):
        client.jobs("SUCCEEDS")  # type: ignore[arg-type]


def test_a_stored_image_is_read_by_its_key_or_as_it_was_listed(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"1", b"2"], "pets")
    listed = list(client.images("pets"))
    assert client.read_image("pets", listed[1]) == b"2"
    assert client.read_image("pets", listed[0].key) == b"1"
    assert [request.image.WhichOneof("image") for request in server.requests("GetImage")] == ["image_id", "key"]
    with pytest.raises(manyview.NotFound, match="no image elsewhere"):
        client.read_image("pets", "elsewhere")
    with pytest.raises(TypeError, match="must be a key or a StoredImage, not bytes"):
        client.read_image("pets", b"1")  # type: ignore[arg-type]


def test_models_are_found_by_job_checkpoint_and_backbone(client: manyview.Client) -> None:
    client.upload([b"a"], "pets")
    job = client.train("pets", job_id="mine")
    assert client.model("mine").name == client.model(job).name == "trainJobs/mine/checkpoints/0"
    assert [model.name for model in client.models("mine")] == ["trainJobs/mine/checkpoints/0"]
    plain = client.models()[-1]
    assert plain.name == "backbones/resnet18"
    assert plain.preprocessing == manyview.Preprocessing(
        image_size=224,
        resize_size=256,
        crop="center",
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        source="the fake server",
    )
    assert client.model(job).preprocessing is None


def test_the_server_tells_limits_devices_and_health(client: manyview.Client, server: FakeServer) -> None:
    info = client.server_info()
    assert (info.version, info.limits.max_batch_images, info.devices[0].name) == ("0.0.0-fake", 256, "cpu")
    assert client.health() == "SERVING"
    server.state.is_serving = False
    assert client.health() == "NOT_SERVING"


def test_one_client_serves_many_threads(client: manyview.Client) -> None:
    client.upload([b"a"], "pets")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: client.embed([b"%d" % n] * 3, "backbones/resnet18", batch_size=1), range(24)))
    assert all((item.array == item.array[0]).all() for item in found)
    assert len({item.array[0].tobytes() for item in found}) == 24


def test_an_unknown_policy_for_refused_images_is_an_error(client: manyview.Client) -> None:
    with pytest.raises(ValueError, match="on_rejected must be"):
        client.upload([b"a"], "pets", on_rejected="ignore")  # type: ignore[arg-type]
