"""Graviton for asyncio: the same names as in :mod:`graviton`, to be awaited.

>>> import asyncio
>>> async def main():
...     async with graviton.aio.open(directory) as store:
...         id = await store.put(b"hello, graviton")
...         print(await store.get(id))
...         async with store.open(id) as file:
...             async for block in file:
...                 print(len(block))
>>> asyncio.run(main())
b'hello, graviton'
15

Cancelling a task ends what it waits for, and leaves no blob of what was being stored; blocks that were written already go
with the next ``gc``. Any number of calls may be under way: those that
have their turn share a few threads, the others wait without one. A store, a reader and a writer belong to no
event loop in particular, but one reader or writer is to be used by one at a time.
"""

from ._files import BlobReader, BlobWriter
from ._store import Manifest, Store
from ._store import open as open

# Without `open`, which would hide the builtin of whoever imports everything.
__all__ = ["BlobReader", "BlobWriter", "Manifest", "Store"]
