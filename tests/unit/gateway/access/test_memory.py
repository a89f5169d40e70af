"""What is in memory of the store is what it has, however many read it at once."""

import asyncio

from gateway.access.rights_cache import Memory


async def test_who_has_looked_something_up_finds_it_also_while_it_is_read_again() -> None:
    memory: Memory[str, int] = Memory(10)
    begun, go_on = asyncio.Event(), asyncio.Event()
    again: list[asyncio.Task[None]] = []

    async def slowly(key: str) -> int:
        begun.set()
        await go_on.wait()
        return 2

    async def before(key: str) -> int:
        again.append(asyncio.create_task(memory.fetch("key", slowly)))
        await begun.wait()
        return 1

    await memory.fetch("key", before)
    assert memory.get("key") == 1
    go_on.set()
    await again[0]
    assert memory.get("key") == 2


async def test_the_one_that_began_last_has_the_last_word() -> None:
    memory: Memory[str, int] = Memory(10)

    async def newer(key: str) -> int:
        return 2

    async def older(key: str) -> int:
        await memory.fetch("key", newer)
        return 1

    await memory.fetch("key", older)
    assert memory.get("key") == 2
