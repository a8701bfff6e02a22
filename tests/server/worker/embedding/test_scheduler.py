from __future__ import annotations

import threading
import time

import torch

from manyview_server.messages.embedding import EmbedImages, EmbedRecipe, ModelKey
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.embedding.embed_requests import DecodedRow, EmbedRequest
from manyview_server.worker.embedding.scheduler import (
    GATHER_FRACTION,
    LONGEST_PASS_S,
    RECENT_S,
    DecodeTask,
    ForwardTask,
    Scheduler,
)


def request(number: int, images: int, backbone: str = "resnet18", dataset_dir: str = "") -> EmbedRequest:
    model = ModelKey(name="", checkpoint_dir="", backbone=backbone, weights_file="", output="backbone")
    return EmbedRequest(
        EmbedImages(
            request_id=number,
            recipe=EmbedRecipe(model=model),
            time_left_s=0.0,
            dataset_dir=dataset_dir,
            blobs=(bytes(images * SNAPSHOT_DTYPE.itemsize),) if dataset_dir else (b"",) * images,
        )
    )


def scheduler(max_batch: int = 8, num_threads: int = 1, smallest_share: int = 2) -> Scheduler:
    return Scheduler(max_batch, 2, num_threads, smallest_share)


def decode_one(queue: Scheduler) -> None:
    task = queue.take(0)
    assert isinstance(task, DecodeTask)
    queue.decoded(DecodedRow(request=task.request, row=task.row, pixels=torch.zeros(3, 1, 1)))


def next_batch(queue: Scheduler) -> list[tuple[int, int]]:
    task = queue.take(0)
    assert isinstance(task, ForwardTask)
    return [(row.request.message.request_id, row.row) for row in task.rows]


def test_concurrent_requests_for_the_same_model_share_a_batch() -> None:
    queue = scheduler()
    for number in (1, 2):
        queue.add(request(number, 2))
    for _ in range(4):
        decode_one(queue)
    assert next_batch(queue) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_full_batch_goes_before_more_is_decoded() -> None:
    queue = scheduler(max_batch=3)
    queue.add(request(1, 5))
    for _ in range(3):
        decode_one(queue)
    assert next_batch(queue) == [(1, 0), (1, 1), (1, 2)]
    decode_one(queue)


def test_models_are_not_mixed_and_take_turns() -> None:
    queue = scheduler(max_batch=2)
    queue.add(request(1, 1, "resnet18"))
    queue.add(request(2, 1, "resnet34"))
    decode_one(queue)
    decode_one(queue)
    assert [next_batch(queue), next_batch(queue)] == [[(1, 0)], [(2, 0)]]


def test_what_is_left_is_split_among_the_threads() -> None:
    queue = scheduler(max_batch=8, num_threads=2)
    queue.add(request(1, 6))
    for _ in range(6):
        decode_one(queue)
    assert [len(next_batch(queue)), len(next_batch(queue))] == [3, 3 - 1]
    assert len(next_batch(queue)) == 1


def test_a_request_is_complete_once_and_only_once() -> None:
    queue, one = scheduler(), request(1, 3)
    queue.add(one)
    assert not queue.rows_done(one, 2)
    assert queue.rows_done(one, 1)
    assert not queue.rows_done(one, 1)


def test_a_cancelled_request_is_neither_decoded_nor_embedded_nor_answered() -> None:
    queue, one = scheduler(), request(1, 3)
    queue.add(one)
    decode_one(queue)
    queue.cancel(1)
    queue.cancel(99)
    queue.add(request(2, 1))
    decode_one(queue)
    assert next_batch(queue) == [(2, 0)]
    assert not queue.rows_done(one, 3)
    assert not queue.give_up(one)


def test_decoding_pauses_while_enough_waits_for_the_network() -> None:
    queue = scheduler(max_batch=1)
    queue.add(request(1, 20))
    for row in range(8):
        task = queue.take(0, embeds=False)
        assert isinstance(task, DecodeTask)
        queue.decoded(DecodedRow(request=task.request, row=row, pixels=torch.zeros(3, 1, 1)))
    resumed = threading.Event()

    def take() -> None:
        queue.take(0, embeds=False)
        resumed.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not resumed.wait(0.1)
    queue.take(0, decodes=False)
    assert resumed.wait(10)
    thread.join()


def test_a_thread_beyond_the_number_allowed_rests_until_it_is_allowed() -> None:
    queue = scheduler(num_threads=1)
    queue.add(request(1, 2))
    taken = threading.Event()

    def take() -> None:
        queue.take(1)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.1)
    queue.set_threads(2)
    assert taken.wait(10)
    thread.join()


def test_stored_images_go_behind_those_of_callers_at_every_task() -> None:
    queue = scheduler(max_batch=8)
    queue.add(request(1, 6, dataset_dir="/data"))
    decode_one(queue)
    queue.add(request(2, 2))
    decode_one(queue)
    decode_one(queue)
    assert next_batch(queue) == [(2, 0), (2, 1)], "the caller's batch, although it is not full"
    decode_one(queue)
    assert next_batch(queue) == [(1, 0), (1, 1)], "a batch of stored images is full with two"
    decode_one(queue)
    queue.add(request(3, 1))
    decode_one(queue)
    assert next_batch(queue) == [(3, 0)]
    decode_one(queue)
    assert next_batch(queue) == [(1, 2), (1, 3)]


def test_stored_images_that_wait_do_not_keep_callers_from_decoding() -> None:
    queue = scheduler(max_batch=1)
    queue.add(request(1, 100, dataset_dir="/data"))
    for row in range(16):
        queue.decoded(DecodedRow(request=queue.take(0, embeds=False).request, row=row, pixels=torch.zeros(3, 1, 1)))  # type: ignore[union-attr]
    queue.add(request(2, 1))
    task = queue.take(0, embeds=False)
    assert isinstance(task, DecodeTask)
    assert task.request.message.request_id == 2


def decode_in_turn(queue: Scheduler) -> int:
    """Decode the next image without a pass, and return the number of its request."""
    task = queue.take(0, embeds=False)
    assert isinstance(task, DecodeTask)
    queue.decoded(DecodedRow(request=task.request, row=task.row, pixels=torch.zeros(3, 1, 1)))
    return task.request.message.request_id


def test_a_small_request_waits_for_one_turn_of_a_large_one_and_shares_its_next_batch() -> None:
    queue = scheduler(max_batch=8)
    queue.add(request(1, 1000))
    for _ in range(3):
        decode_one(queue)
    queue.add(request(2, 2))
    for _ in range(5):
        decode_one(queue)
    assert next_batch(queue) == [(1, row) for row in range(8)], "the rest of the turn that had begun"
    assert [decode_in_turn(queue) for _ in range(10)] == [2, 2] + 8 * [1]
    assert next_batch(queue)[:2] == [(2, 0), (2, 1)]


def test_a_large_request_has_its_next_turn_however_many_small_ones_come() -> None:
    queue = scheduler(max_batch=64)
    queue.add(request(1, 1000))
    for number in range(200, 210):
        queue.add(request(number, 1))
    decoded = []
    for number in range(300, 500):
        decoded.append(decode_in_turn(queue))
        if decoded[-1] != 1:  # its caller sends the next one
            queue.add(request(number, 1))
    assert all(1 in decoded[start : start + 10 + 2 * 8] for start in range(len(decoded) - 26))


def test_small_requests_keep_their_order() -> None:
    queue = scheduler(max_batch=8)
    for number in (3, 1, 2):
        queue.add(request(number, 1))
    queue.add(request(4, 3))
    assert [decode_in_turn(queue) for _ in range(6)] == [1, 2, 3, 4, 4, 4]


def test_a_large_request_keeps_no_small_one_of_another_model_from_its_pass() -> None:
    queue = scheduler(max_batch=8)
    queue.add(request(1, 1, "resnet34"))
    queue.add(request(2, 1000))
    batches: list[list[tuple[int, int]]] = []
    while [(1, 0)] not in batches:
        match queue.take(0):
            case DecodeTask() as task:
                queue.decoded(DecodedRow(request=task.request, row=task.row, pixels=torch.zeros(3, 1, 1)))
            case ForwardTask() as task:
                batches.append([(row.request.message.request_id, row.row) for row in task.rows])
    assert len(batches) <= 2


def test_a_pass_is_bounded_by_the_time_that_its_model_takes() -> None:
    queue = scheduler(max_batch=32)
    queue.add(request(1, 64))
    for _ in range(32):
        decode_one(queue)
    assert len(next_batch(queue)) == 32
    queue.passed(request(1, 1).key, 32, 32 * LONGEST_PASS_S / 8)
    for _ in range(8):
        decode_one(queue)
    assert len(next_batch(queue)) == 8, "images of which eight take the longest time"
    queue.passed(request(1, 1).key, 8, 8 * 2 * LONGEST_PASS_S)
    for _ in range(20):
        queue.passed(request(1, 1).key, 1, 2 * LONGEST_PASS_S)
    decode_one(queue)
    assert len(next_batch(queue)) == 1, "one image that takes longer goes alone"


def test_a_single_image_goes_to_the_thread_that_uses_all_cores_only_if_nothing_else_is_there() -> None:
    queue = scheduler(num_threads=2)
    taken: list[DecodeTask] = []
    began = threading.Event()

    def take() -> None:
        while len(taken) < 2:
            began.set()
            taken.append(queue.take_single())

    thread = threading.Thread(target=take)
    thread.start()
    assert began.wait(10)
    one = request(1, 1)
    while not queue._takes_single:
        time.sleep(0.001)
    queue.add(one)
    while not taken:
        time.sleep(0.001)
    assert (taken[0].request, taken[0].row) == (one, 0)

    def waits(number: int, later_s: float, images: int = 1, dataset_dir: str = "") -> None:
        """Check that a request is decoded in its turn."""
        other = request(number, images, dataset_dir=dataset_dir)
        other.arrived = one.arrived + later_s
        queue.add(other)
        assert decode_in_turn(queue) == number
        queue.cancel(number)

    waits(2, 0)  # because the first one is still in progress
    queue.rows_done(one, 1)
    waits(3, RECENT_S)  # because there were two requests at once a moment ago
    waits(4, 3 * RECENT_S, images=2)  # because two images are for two threads
    waits(5, 3 * RECENT_S, dataset_dir="/data")  # because stored images are in no hurry
    queue.set_threads(1)
    waits(6, 3 * RECENT_S)  # because another process needs the other cores
    queue.set_threads(2)
    last = request(7, 1)
    last.arrived = one.arrived + 3 * RECENT_S
    queue.add(last)
    thread.join(10)
    assert taken[1].request is last


def test_an_incomplete_batch_waits_for_callers_that_came_together_lately() -> None:
    queue = scheduler(num_threads=2)
    pass_s = 0.05
    tasks = []
    for number in range(1, 7):
        queue.add(one := request(number, 1))
        queue.passed(one.key, 1, pass_s)
    for _ in range(6):
        tasks.append(queue.take(0))
    rows = [
        DecodedRow(request=task.request, row=0, pixels=torch.zeros(3, 1, 1))
        for task in tasks
        if isinstance(task, DecodeTask)
    ]
    for row in rows[:2]:
        queue.decoded(row)
    began = time.monotonic()
    assert next_batch(queue) == [(1, 0), (2, 0)]
    assert time.monotonic() - began > 0.8 * GATHER_FRACTION * 3 * pass_s, "3 of the 6 callers are a thread's share"
    for row in rows[2:5]:
        queue.decoded(row)
    assert queue._callers.embed_at(share=3) == 0, "they are the share"
    assert next_batch(queue) == [(3, 0), (4, 0), (5, 0)]


def test_a_caller_alone_waits_for_nobody() -> None:
    queue = scheduler(num_threads=2)
    for number in (1, 2):
        queue.add(one := request(number, 1))
        queue.passed(one.key, 1, 60.0)
        decode_one(queue)
        assert next_batch(queue) == [(number, 0)]
        queue.rows_done(one, 1)
