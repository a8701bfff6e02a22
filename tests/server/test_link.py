"""The link over a real socket pair: what goes in comes out, and every way to end it is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import struct
import threading
import typing
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.link import blocking, streams
from manyview_server.link.blocking import Link
from manyview_server.link.frames import (
    MAX_ANSWER_BYTES,
    MAX_BLOB_BYTES,
    MAX_HEADER_BYTES,
    MESSAGE_TYPES,
    PREFIX,
    LinkClosed,
    LinkCorrupt,
    MessageTooLarge,
    decode,
    encode,
)
from manyview_server.link.streams import AsyncLink
from manyview_server.messages.embedding import CancelEmbed, EmbedDone, RowFailed
from manyview_server.messages.message import Message
from manyview_server.messages.selection import NearestFound, SelectionFailed
from manyview_server.messages.training import ScalarsLogged, StartTraining, StopTraining

DONE = EmbedDone(
    request_id=7,
    shape=(2, 3),
    errors=(RowFailed(row=1, reason="DECODE_FAILED", message="cut off"),),
    queue_ms=0.5,
    decode_ms=1.25,
    forward_ms=2.0,
    batch_images=2,
    blobs=(b"\0" * 24,),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def round_trip(message: Message) -> Message:
    frame = b"".join(encode(message))
    header_bytes, blob_bytes = PREFIX.unpack(frame[: PREFIX.size])
    body = frame[PREFIX.size :]
    assert len(body) == header_bytes + blob_bytes
    return decode(body[:header_bytes], body[header_bytes:])


def test_every_message_class_can_travel() -> None:
    declared = {
        kind.__name__ for kind in Message.__subclasses__() if kind.__module__.startswith("manyview_server.messages.")
    }
    assert set(MESSAGE_TYPES) == declared


def test_tuples_and_nested_dataclasses_come_back_as_they_were() -> None:
    assert round_trip(DONE) == DONE


@given(
    st.dictionaries(st.text(), st.floats(allow_nan=False)),
    st.integers(0, 2**62),
    st.lists(st.binary(max_size=50), max_size=4),
)
def test_values_and_blobs_survive_untouched(values: dict[str, float], step: int, blobs: list[bytes]) -> None:
    message = ScalarsLogged(step=step, epoch=1, values=values, blobs=tuple(blobs))
    assert round_trip(message) == message


def send_all(sender: Link, messages: Sequence[Message]) -> None:
    for message in messages:
        sender.send(message)


def receive(receiver: Link, count: int) -> list[Message]:
    return [receiver.receive() for _ in range(count)]


def test_messages_arrive_in_order_however_large(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Link(pair[0]), Link(pair[1])
    large = ScalarsLogged(step=1, epoch=0, values={}, blobs=(b"x" * 3_000_000, b"", b"y"))
    sent = [large, StopTraining(), DONE]
    thread = threading.Thread(target=lambda: send_all(sender, sent))
    thread.start()
    assert [receiver.receive() for _ in sent] == sent
    thread.join(10)


def test_threads_may_send_at_once_without_mixing_frames(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Link(pair[0]), Link(pair[1])

    def send(first: int) -> None:
        for i in range(20):
            sender.send(ScalarsLogged(step=first + i, epoch=0, values={}, blobs=(b"z" * 10_000, bytes(first))))

    threads = [threading.Thread(target=send, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    steps = [
        received.step for received in (receiver.receive() for _ in range(80)) if isinstance(received, ScalarsLogged)
    ]
    for thread in threads:
        thread.join(10)
    assert sorted(steps) == sorted(100 * n + i for n in range(4) for i in range(20))


def test_closing_is_seen_as_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    Link(pair[0]).close()
    with pytest.raises(LinkClosed):
        Link(pair[1]).receive()


def test_an_end_within_a_frame_is_seen_as_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    frame = b"".join(encode(DONE))
    pair[0].sendall(frame[:-5])
    pair[0].close()
    with pytest.raises(LinkClosed, match="of 24 bytes"):
        Link(pair[1]).receive()


def test_sending_to_a_closed_end_raises(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(LinkClosed):
        Link(pair[0]).send(StopTraining())


def frame_of(header: bytes, blobs: bytes = b"") -> bytes:
    return struct.pack("<IQ", len(header), len(blobs)) + header + blobs


CORRUPT = {
    "no JSON": frame_of(b"\xff\xfe"),
    "unknown type": frame_of(json.dumps({"type": "Nothing", "fields": {}, "blobs": []}).encode()),
    "unknown field": frame_of(json.dumps({"type": "CancelEmbed", "fields": {"x": 1}, "blobs": []}).encode()),
    "missing field": frame_of(json.dumps({"type": "CancelEmbed", "fields": {}, "blobs": []}).encode()),
    "a text for a number": frame_of(json.dumps({"type": "CancelEmbed", "fields": {"request_id": "1"}}).encode()),
    "a list of texts for numbers": frame_of(
        json.dumps({"type": "ScalarsLogged", "fields": {"step": 1, "epoch": 1, "values": {"loss": "low"}}}).encode()
    ),
    "a text that is none of the allowed ones": frame_of(
        json.dumps({"type": "TrainingEnded", "fields": {"outcome": "won", "step": 1, "epoch": 1}, "blobs": []}).encode()
    ),
    "no object": frame_of(b"[]"),
    "header over the limit": struct.pack("<IQ", MAX_HEADER_BYTES + 1, 0),
    "blobs over the limit": struct.pack("<IQ", 2, MAX_BLOB_BYTES + 1) + b"{}",
}


@pytest.mark.parametrize("frame", CORRUPT.values(), ids=CORRUPT.keys())
def test_what_is_no_frame_is_corrupt(frame: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(frame)
    with pytest.raises(LinkCorrupt):
        Link(pair[1]).receive()


@pytest.mark.parametrize("frame", CORRUPT.values(), ids=CORRUPT.keys())
async def test_the_front_sees_a_corrupt_frame_too(frame: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
    link = await AsyncLink.over(pair[1])
    pair[0].sendall(frame)
    with pytest.raises(LinkCorrupt):
        await link.receive()
    link.close()
    await asyncio.sleep(0)


async def test_no_worker_can_make_the_front_take_in_more_than_an_answer(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    link = await AsyncLink.over(pair[1])
    pair[0].sendall(struct.pack("<IQ", 2, MAX_ANSWER_BYTES + 1) + b"{}")
    with pytest.raises(LinkCorrupt, match="over the limit"):
        await link.receive()
    link.close()
    await asyncio.sleep(0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(MESSAGE_TYPES)), st.data())
def test_whatever_a_worker_sends_is_a_message_of_the_right_types_or_corrupt(name: str, data: st.DataObject) -> None:
    names = [field.name for field in dataclasses.fields(MESSAGE_TYPES[name]) if field.name != "blobs"]
    fields = data.draw(st.fixed_dictionaries({name: JSON for name in names}) | JSON)
    header = json.dumps({"type": name, "fields": fields, "blobs": data.draw(st.just([]) | JSON)}).encode()
    with contextlib.suppress(LinkCorrupt):
        message = decode(header, b"")
        assert round_trip(message) == message or "NaN" in header.decode()


async def test_both_ends_speak_to_each_other(pair: tuple[socket.socket, socket.socket]) -> None:
    front, worker = await AsyncLink.over(pair[0]), Link(pair[1])
    echo = asyncio.create_task(asyncio.to_thread(lambda: worker.send(worker.receive())))
    await front.send(DONE)
    async with asyncio.timeout(10):
        assert await front.receive() == DONE
    await echo
    front.close()
    await asyncio.sleep(0)


async def test_many_tasks_may_send_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    front, worker = await AsyncLink.over(pair[0]), Link(pair[1])
    receiving = asyncio.to_thread(receive, worker, 20)
    sending = (front.send(CancelEmbed(request_id=i, blobs=(b"b" * 200_000,))) for i in range(20))
    received, _ = await asyncio.gather(receiving, asyncio.gather(*sending))
    assert sorted(m.request_id for m in received if isinstance(m, CancelEmbed)) == list(range(20))
    front.close()
    await asyncio.sleep(0)


async def test_the_front_sees_a_workers_death(pair: tuple[socket.socket, socket.socket]) -> None:
    front = await AsyncLink.over(pair[0])
    pair[1].sendall(b"".join(encode(DONE))[:10])
    pair[1].close()
    with pytest.raises(LinkClosed):
        await front.receive()

    async def send_on() -> None:
        for _ in range(100):
            await front.send(DONE)

    with pytest.raises(LinkClosed):
        await send_on()
    front.close()
    await asyncio.sleep(0)


async def test_a_worker_that_ends_between_frames_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    front = await AsyncLink.over(pair[0])
    pair[1].close()
    with pytest.raises(LinkClosed):
        await front.receive()
    front.close()
    await asyncio.sleep(0)


LONG = StartTraining(
    train_job="job",
    attempt=1,
    settings={"evaluation": {"knn_more": [{"k": 20, "temperature": 0.1}] * 40_000}, "epochs": 1},
    dataset_dir="",
    checkpoint_dir="",
    resume_from="",
    device="cpu",
    num_threads=1,
    cache_bytes=0,
)


async def test_a_message_with_too_long_fields_is_refused_where_it_is_sent_and_names_the_longest(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    front = await AsyncLink.over(pair[0])
    with pytest.raises(MessageTooLarge) as refused:
        await front.send(LONG)
    assert refused.value.message.startswith(
        "evaluation.knn_more has 40,000 entries of 1,080,001 bytes; together, the fields of a StartTraining take 1,080,"
    )
    assert refused.value.message.endswith(" bytes, and at most 1,048,576 are allowed")
    await front.send(StopTraining())
    assert await asyncio.to_thread(Link(pair[1]).receive) == StopTraining(), "nothing of the other one was sent"
    front.close()


async def test_long_lists_of_integers_do_not_count_among_the_fields(pair: tuple[socket.socket, socket.socket]) -> None:
    ids = tuple(range(2**63 - 1, 0, -(2**63 // 200_000)))
    message = dataclasses.replace(
        LONG, settings={"epochs": 1}, quarantined=ids, too_slow=ids[:5], suspects=ids[:1001], blobs=(b"rows", b"")
    )
    front, worker = await AsyncLink.over(pair[0]), Link(pair[1])
    sending = asyncio.ensure_future(front.send(message))
    assert await asyncio.to_thread(worker.receive) == message
    await sending
    front.close()
    header, *blobs = encode(message)
    assert len(header) < 1000
    assert [len(blob) for blob in blobs] == [4, 0, 8 * 1001, 8 * len(ids)]
    assert len(ids) >= 200_000
    with pytest.raises(LinkCorrupt, match="requires a buffer of"):
        decode(header[PREFIX.size :].replace(b"%d]" % (8 * len(ids)), b"%d]" % (8 * len(ids) - 1)), b"".join(blobs))


def test_a_worker_s_message_with_too_long_fields_is_refused_where_it_is_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    worker = Link(pair[0])
    with pytest.raises(MessageTooLarge, match="message has one value of 2,000,002 bytes"):
        worker.send(SelectionFailed(code="INTERNAL", reason="X", message="y" * 2_000_000))
    worker.send(StopTraining())
    assert Link(pair[1]).receive() == StopTraining(), "nothing of the other one was sent"


async def test_too_much_data_beside_the_fields_is_refused_where_it_is_sent(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_BLOB_BYTES", 2000)
    monkeypatch.setattr(blocking, "MAX_ANSWER_BYTES", 1000)
    monkeypatch.setattr(streams, "MAX_ANSWER_BYTES", 1000)
    front, worker = await AsyncLink.over(pair[0]), Link(pair[1])
    await front.send(dataclasses.replace(DONE, blobs=(b"x" * 2000,)))
    with pytest.raises(MessageTooLarge, match=r"may carry at most 2,000 bytes of data \(got 2,001\)"):
        await front.send(dataclasses.replace(DONE, blobs=(b"x" * 2000, b"x")))
    worker.send(dataclasses.replace(DONE, blobs=(b"x" * 1000,)))
    with pytest.raises(MessageTooLarge, match=r"may carry at most 1,000 bytes of data \(got 1,001\)"):
        worker.send(dataclasses.replace(DONE, blobs=(b"x" * 1001,)))
    front.close()


async def test_a_sender_that_is_cancelled_in_the_middle_leaves_a_whole_frame() -> None:
    ours, theirs = socket.socketpair()
    sender = await AsyncLink.over(ours)
    large = EmbedDone(
        request_id=1,
        shape=(1, 1),
        errors=(),
        queue_ms=0.0,
        decode_ms=0.0,
        forward_ms=0.0,
        batch_images=1,
        blobs=(bytes(8 << 20),),
    )
    sending = asyncio.create_task(sender.send(large))
    while sender._writer.transport.get_write_buffer_size() == 0:  # nobody reads yet: it waits within the frame
        await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert sending.cancelled()
    follow = asyncio.create_task(sender.send(CancelEmbed(request_id=2)))
    receiver = Link(theirs)
    assert await asyncio.to_thread(receiver.receive) == large
    assert await asyncio.to_thread(receiver.receive) == CancelEmbed(request_id=2)
    await follow
    sender.close()
    receiver.close()


async def test_a_message_that_is_longer_than_a_part_arrives_whole_both_ways() -> None:
    ours, theirs = socket.socketpair()
    front, worker = await AsyncLink.over(ours), Link(theirs)
    blobs = (bytes(range(256)) * 13_000, b"", b"end" * 700_000)
    message = NearestFound(num_neighbors=3, blobs=blobs)
    sending = asyncio.create_task(front.send(message))
    assert await asyncio.to_thread(worker.receive) == message
    await sending
    answering = asyncio.create_task(asyncio.to_thread(worker.send, message))
    assert await front.receive() == message
    await answering
    front.close()
    worker.close()


def test_the_types_of_a_message_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    header = encode(ScalarsLogged(step=1, epoch=0, values={"loss": 1.0}))[0][PREFIX.size :]
    assert isinstance(decode(header, b""), ScalarsLogged)
    monkeypatch.delattr(typing, "get_type_hints")
    assert isinstance(decode(header, b""), ScalarsLogged)
