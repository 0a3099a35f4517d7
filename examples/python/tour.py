# %% [markdown]
# # A tour of Graviton
# A notebook in cells (`# %%`): open it in VS Code, PyCharm or with jupytext, or run it as it is.

# %%
# The last line of a cell is shown.
# pyright: reportUnusedExpression=false
import io
import random
import tarfile
import tempfile

import graviton

directory = tempfile.TemporaryDirectory()
store = graviton.open(directory.name, chunker="fastcdc:4096:16384:65536")
store

# %% [markdown]
# `put` returns an id: you need nothing else to get the bytes back. `b3sum` prints the same hash.

# %%
id = store.put(b"hello, graviton")
assert store.get(id) == b"hello, graviton"
id.algo, id.size, store.read_range(id, 7, 8)

# %% [markdown]
# A text is edited at its start. Only the blocks around the edit are new, because the content decides the
# block boundaries.

# %%
first = random.Random(1).randbytes(1_000_000)
second = first[:1000] + b"an edit" + first[1000:]
before = store.put_receipt(first)
after = store.put_receipt(second)
assert after.fresh_bytes < 100_000
after

# %% [markdown]
# The picture of a manifest shows the blocks that were stored before.

# %%
picture = store.manifest(after.id).against(store.manifest(before.id))
assert "there before" in picture._repr_html_()
picture

# %% [markdown]
# Blobs are files: everything that reads binary files can read blobs.

# %%
with store.writer() as file:
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name in ("a.txt", "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
with store.open(file.id) as blob, tarfile.open(fileobj=blob) as archive:
    names = archive.getnames()
assert names == ["a.txt", "b.txt"]
names

# %% [markdown]
# Nothing is lost by accident: a deleted blob can be restored for an hour, and damage is found.

# %%
store.delete(before.id)
store.restore(before.id)
assert store.verify(deep=True).clean
stats = store.stats()
stats

# %%
print(f"{stats.blobs} blobs of {stats.logical_bytes:,} bytes take {stats.stored_bytes:,}")
assert stats.dedup_ratio > 1.8
store.close()
directory.cleanup()
