from __future__ import annotations

import os
import threading
import time

import torch

from manyview_server.worker.job_images.decode_threads import NICENESS, DecodeThreads


def test_decoders_give_way_to_the_training_and_start_no_teams() -> None:
    before = torch.get_num_threads()
    threads = DecodeThreads(1)

    def look() -> tuple[int, int]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), torch.get_num_threads()

    assert threads.submit(look).result() == (os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 1)
    assert torch.get_num_threads() == before
    threads.close()


def test_closing_drops_what_was_not_begun_and_ends_the_threads() -> None:
    threads = DecodeThreads(1)
    begun = threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.1)

    running, waiting = threads.submit(work), threads.submit(work)
    assert begun.wait(10)
    threads.close()
    assert running.done()
    assert waiting.cancelled()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode_")]
