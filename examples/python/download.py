"""Downloads from the web into a store, many at once. Known content takes no space, and a download that fails
or is interrupted leaves nothing.

    python download.py DIRECTORY URL...
"""

from __future__ import annotations

import asyncio
import sys
import urllib.request

import graviton
import graviton.aio


async def download(store: graviton.aio.Store, url: str) -> graviton.PutReceipt:
    """The store asks for the next piece when it has room for it, so memory stays small for a file of any
    size."""
    # The standard library has no asynchronous client. With another one, put its stream the same way.
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=60) as response:
        return await store.put_receipt(response)


async def main(place: str, urls: list[str]) -> int:
    failed = 0
    async with graviton.aio.open(place) as store:
        for url, result in zip(
            urls, await asyncio.gather(*(download(store, url) for url in urls), return_exceptions=True)
        ):
            if isinstance(result, graviton.PutReceipt):
                print(f"{result.id}  {url}  {result.fresh_bytes} new bytes")
            elif isinstance(result, OSError):
                failed += 1
                print(f"failed  {url}  {result}")
            else:
                raise result
        stats = await store.stats()
        print(f"the store has {stats.blobs} blobs of {stats.logical_bytes} bytes in {stats.stored_bytes}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
