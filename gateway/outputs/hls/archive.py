"""Where HLS segments are kept besides memory: a folder or a bucket (S3 and what speaks like it), through obstore.

Kept true: whoever hands over a segment never waits. So many bytes may be on their way; what comes when they are full, what is refused and
what takes too long is lost, counted, and told to who handed it over. obstore's own threads do the waiting for disks.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from gateway.telemetry.log import event

log = logging.getLogger(__name__)

_PARALLEL = 4
_MOST_BYTES = 64 << 20
_MOST_JOBS = 1024
_TIMEOUT_S = 10.0
_SAY_EVERY_S = 60.0

Kept = Callable[[bool], None]
"""Told whether it is kept, on the event loop; must not block or raise."""


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    data: bytes  # empty: delete
    kept: Kept


class Archive:
    """`run` does the work until cancelled."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """`url` as `file:///folder` or `s3://bucket/prefix`; `options` are those of obstore for it. Raises `ValueError`."""
        try:
            self._store: ObjectStore = _opened(url, options)
        except (BaseError, OSError) as error:
            raise ValueError(str(error).splitlines()[0]) from None
        self.results: Counter[str] = Counter()
        """stored, failed, dropped."""
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(_MOST_JOBS)
        self._waiting_bytes = 0
        self._said = -_SAY_EVERY_S

    def put(self, path: str, data: bytes, kept: Kept) -> None:
        if self._waiting_bytes + len(data) > _MOST_BYTES or self._jobs.full():
            self._lose("dropped", "it does not keep up")
            kept(False)
            return
        self._waiting_bytes += len(data)
        self._jobs.put_nowait(_Job(path, data, kept))

    def delete(self, path: str) -> None:
        if not self._jobs.full():  # else it stays: a bucket has its own rules of expiry for that
            self._jobs.put_nowait(_Job(path, b"", lambda kept: None))

    async def get(self, path: str) -> bytes | None:
        """None where it is not there, or not in time."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = await obstore.get_async(self._store, path)
                return bytes(await found.bytes_async())
        except (BaseError, OSError, TimeoutError):
            return None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(self._work(), name="archive")

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    if job.data:
                        await obstore.put_async(self._store, job.path, job.data)
                    else:
                        await obstore.delete_async(self._store, job.path)
            except (BaseError, OSError, TimeoutError) as error:
                if job.data:
                    self._lose("failed", "it took too long" if isinstance(error, TimeoutError) else str(error).splitlines()[0])
                    job.kept(False)
            else:
                self.results["stored" if job.data else "deleted"] += 1
                job.kept(True)
            finally:
                self._waiting_bytes -= len(job.data)

    def _lose(self, result: str, why: str) -> None:
        self.results[result] += 1
        now = asyncio.get_running_loop().time()
        if now - self._said >= _SAY_EVERY_S:
            self._said = now
            words = "HLS segments are not kept: viewers who are far behind will miss them; check hls.storage"
            event(log, logging.WARNING, words, why=why[:200], lost=self.results["failed"] + self.results["dropped"])


def _opened(url: str, options: Mapping[str, str]) -> ObjectStore:
    settings: dict[str, Any] = {"mkdir": True}
    if not url.startswith("file:"):
        # At most two tries within the time that a segment has
        settings = {
            "config": dict(options),
            "client_options": {"timeout": "8s", "connect_timeout": "3s", "allow_http": True},
            "retry_config": {"max_retries": 1},
        }
    store: ObjectStore = from_url(url, **settings)
    return store
