"""Graviton for asyncio: the same names as in :mod:`graviton`, as coroutines.

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

Cancelling a task ends the call that it waits for; a cancelled put leaves no blob, and the next ``gc`` frees
blocks that it had written. Any number of calls may run at once: they share a few threads, and waiting calls
need none. Stores, readers and writers are not bound to an event loop, but a reader or writer may be used by
one task at a time only.
"""

from ._files import BlobReader, BlobWriter
from ._manifest import Manifest
from ._store import Store
from ._store import open as open

# Without `open`, which would hide the builtin after `import *`.
__all__ = ["BlobReader", "BlobWriter", "Manifest", "Store"]
