"""What a library does to the scheduling of our threads is undone."""

import os
import threading

import av

from transcode.encoder_table import SVT_AV1
from transcode.worker.encoders import open_video
from transcode.worker.scheduling import own_scheduling


def policies() -> set[int]:
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}


def test_threads_have_the_policy_again_that_their_process_had() -> None:
    ready, done = threading.Event(), threading.Event()

    def library() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        ready.set()
        done.wait()

    thread = threading.Thread(target=library)
    try:
        with own_scheduling():
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            thread.start()
            ready.wait()
            assert os.SCHED_BATCH in policies()
        assert policies() == {os.SCHED_OTHER}
    finally:
        done.set()
        thread.join()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_an_av1_encoder_takes_no_priority_over_others() -> None:
    encoder = open_video(av.VideoFrame(320, 180, "yuv420p"), 30, 500_000, "veryfast", SVT_AV1)
    assert encoder.is_open
    assert policies() == {os.SCHED_OTHER}
