from __future__ import annotations

import threading
import time

import torch

from manyview_server.worker.job_images.decode_threads import DecodeThreads


def test_a_decoder_starts_no_team_and_leaves_the_training_its_own() -> None:
    before = torch.get_num_threads()
    threads = DecodeThreads(1)
    assert threads.submit(torch.get_num_threads).result() == 1
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
