"""Writers to be killed: `python -m tests.support.durable_writer URL` starts one for each line that it reads, and says what that one does.

A writer says its process id, opens the store, checks what the line names (calls that were acknowledged, as `created` or `live`), then
writes until it is killed and says each thing once the store has acknowledged it. After its death the line is `gone`.
"""

import asyncio
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from gateway.model.records import Call, Member, StreamKey
from gateway.store.store import Store


def say(words: str) -> None:
    os.write(1, f"{words}\n".encode())  # at once and whole, whatever comes next


async def write(url: str, name: str, acknowledged: list[str]) -> None:
    now = datetime.now(UTC)
    async with Store.open(url) as store:
        for each in acknowledged:
            state, _, cid = each.partition(" ")
            call = await store.calls.get(cid)
            if call is None or (state == "live" and not call.live) or len(await store.calls.members(cid)) != 1:
                say(f"lost {each}")
        say("checked")
        for n in count():
            cid = f"livestream:{name}-{n}"
            call = Call("livestream", f"{name}-{n}", "john", now, now, backstage=True)
            await store.calls.get_or_create(call, [Member(cid, "john", now, now, "host")])
            say(f"created {cid}")
            await store.stream_keys.add(StreamKey(f"{name}-{n}", cid, "john", "john", now))
            await store.calls.change(cid, lambda c: replace(c, backstage=False, live_started_at=now), now=now)
            say(f"live {cid}")


def main(url: str) -> None:
    for line in sys.stdin:
        name, *acknowledged = line.strip().split(",")
        if (pid := os.fork()) == 0:
            say(f"pid {os.getpid()}")
            try:
                asyncio.run(write(url, name, acknowledged))
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
        say("gone")


if __name__ == "__main__":
    main(sys.argv[1])
