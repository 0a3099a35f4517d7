"""Processes: a store that a process inherited by a fork is refused at once, and a pickled store is opened
again. Nothing ever hangs, whatever the parent's threads were doing at the fork."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import graviton
import pytest
from conftest import Place, cluster
from graviton import BlobId, ForkedError, Store

ROUNDS = 20


def forked(child: Callable[[], None]) -> None:
    """Runs this in a forked child, which must end well."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn about threads, which this test needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        # The alarm ends a child that hangs, so that its parent does not hang.
        signal.alarm(60)
        try:
            child()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def forked_beside(count: int, work: Callable[[int], None], child: Callable[[], None]) -> None:
    """Runs the child a hundred times, while this many threads repeat the work."""
    done = threading.Event()

    def again(number: int) -> None:
        while not done.is_set():
            work(number)

    threads = [threading.Thread(target=again, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            forked(child)
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_child_is_told_that_a_store_is_its_parents(place: Place) -> None:
    with place.open() as store:
        id = store.put(b"data" * 10_000)
        with store.open(id, buffering=0) as reader, store.writer() as writer:
            writer.write(b"begun")

            def child() -> None:
                calls: list[Callable[[], object]] = [
                    lambda: store.get(id),
                    lambda: store.put(b"x"),
                    lambda: store.put_file(__file__),
                    lambda: store.put_many([__file__]),
                    lambda: store.writer(),
                    lambda: store.exists(id),
                    lambda: list(store.list()),
                    lambda: store.gc(),
                    lambda: store.verify(),
                    lambda: reader.read(1),
                    lambda: reader.seek(1),
                    lambda: writer.tell(),
                    lambda: writer.__exit__(None, None, None),
                ]
                for call in calls:
                    with pytest.raises(ForkedError):
                        call()
                store.close()

            for _ in range(ROUNDS):
                forked(child)
            assert reader.read() == b"data" * 10_000
        assert store.get(writer.id) == b"begun"


INHERITED = """
import graviton, os, sys
store = graviton.open(sys.argv[1])
id = store.put(b"data")
forgotten, forgotten_reader = store.writer(), store.open(id)
with store.open(id) as buffered, store.open(id, buffering=0) as reader, store.writer() as writer:
    writer.write(b"whole")
    process = os.fork()
    if process == 0:
        del forgotten, forgotten_reader
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), reader.read(), buffered.read())
forgotten.abort()
print(store.get(writer.id))
"""


def test_a_child_that_ends_well_is_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", INHERITED, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 b'data' b'data'\nb'whole'\n", "")


def test_a_child_opens_stores_of_its_own(place: Place, tmp_path: Path) -> None:
    with place.open() as store:
        id = store.put(b"data")
        pickled = pickle.dumps(store)

        def child() -> None:
            own = graviton.open(tmp_path / f"own-{os.getpid()}")
            assert own.get(own.put(b"mine")) == b"mine"
            if place.is_files:
                # SQLite's locks do not survive a fork.
                with pickle.loads(pickled) as refused:
                    for call in (lambda: refused.get(id), refused.stats, lambda: own.copy_from(refused)):
                        with pytest.raises(ForkedError):
                            call()
                    assert type(pickle.loads(pickle.dumps(refused))) is Store
            else:
                os.environ.update(place.environment())
                with pickle.loads(pickled) as again:
                    assert again.get(id) == b"data"
                    assert again.put(b"from the child") == BlobId.of(b"from the child")
            own.close()

        for _ in range(3):
            forked(child)
        assert store.get(id) == b"data"


def test_a_fork_in_the_middle_of_everything(files: Place) -> None:
    with files.open() as store:
        data = os.urandom(200_000)
        reader = store.open(store.put(data), buffering=0)

        def work(number: int) -> None:
            assert store.get(store.put(data[number:])) == data[number:]
            reader.seek(number)
            reader.read(1000)

        def child() -> None:
            for call in (lambda: store.put(data), lambda: reader.read(5), lambda: store.stats()):
                with pytest.raises(ForkedError):
                    call()

        forked_beside(8, work, child)
        reader.close()


def test_a_child_waits_for_no_lock_that_a_put_of_its_parent_had(files: Place) -> None:
    with files.open() as store:
        data = os.urandom(200_000)

        def work(number: int) -> None:
            store.put(data[number:])

        def child() -> None:
            with pytest.raises(ForkedError):
                store.put(data)

        forked_beside(16, work, child)


def size_of(store: Store, id: str) -> int:
    return len(store.get(id))


def put_here(place: Place, data: bytes) -> str:
    with place.open() as store:
        return store.put(data)


def pool_of(place: Place, method: str) -> concurrent.futures.ProcessPoolExecutor:
    """Two workers that find the secrets in their environment, as a pickled store does."""
    secrets = {name: value for name, value in place.environment().items() if "PASSWORD" in name or "URL" in name}
    context = multiprocessing.get_context(method)
    return concurrent.futures.ProcessPoolExecutor(2, context, remember, (secrets,))


def remember(secrets: dict[str, str]) -> None:
    os.environ.update(secrets)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_processes(place: Place, method: str) -> None:
    with place.open() as store, pool_of(place, method) as pool:
        ids = [store.put(os.urandom(number * 1000)) for number in range(10)]
        assert list(pool.map(size_of, [store] * 10, ids)) == [number * 1000 for number in range(10)]
        assert [pool.submit(store.get, id).result() for id in ids] == [store.get(id) for id in ids]
        assert pool.submit(store.put, b"from the worker").result() in store
        assert pool.submit(put_here, place, b"there").result() in store
        with pytest.raises(graviton.NotFoundError) as missing:
            pool.submit(store.get, BlobId.of(b"missing")).result()
        assert missing.value.advice


def test_a_forking_pool_works_or_says_why(place: Place) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with place.open() as store, pool_of(place, "fork") as pool:
            id = store.put(b"data")
            future = pool.submit(size_of, store, id)
            if place.is_files:
                with pytest.raises(ForkedError):
                    future.result()
            else:
                assert future.result() == 4


MAP_WITH_FORKS = """
import graviton, multiprocessing, sys
store = graviton.open(sys.argv[1])
id = store.put(b"data")
with multiprocessing.get_context("fork").Pool(2) as pool:
    try:
        pool.map(store.get, [id] * 4)
    except graviton.ForkedError as error:
        print(error.code)
"""


MAP_WITHOUT_A_SECRET = """
import graviton, multiprocessing, os
store = graviton.Store.from_env()
id = store.put(b"data")
del os.environ["MINIO_ROOT_PASSWORD"]
with multiprocessing.get_context("fork").Pool(2) as pool:
    try:
        pool.map(store.get, [id] * 4)
    except graviton.ConfigError as error:
        print(error.code)
"""


@pytest.mark.parametrize("code", ["forked", "config"])
def test_a_map_of_forks_says_why(code: str, tmp_path: Path) -> None:
    """It loses no task either, for which it would wait for ever."""
    program = MAP_WITH_FORKS if code == "forked" else MAP_WITHOUT_A_SECRET
    environment = os.environ | (cluster(tmp_path / "store").environment() if code == "config" else {})
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path / "store")]
    pipe = subprocess.PIPE
    # In a group of its own, so that a hanging program is ended with its workers.
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, process_group=0, env=environment) as process:
        try:
            assert process.communicate(timeout=60) == (f"{code}\n", "")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_store_that_was_opened_after_the_fork_is_the_childs(place: Place) -> None:
    """The usual way for a server that forks its workers: nothing is opened before."""

    def child() -> None:
        with place.open() as store:
            assert store.get(store.put(b"data")) == b"data"

    for _ in range(3):
        forked(child)
    with place.open() as store:
        assert store.get(BlobId.of(b"data")) == b"data"


def test_a_store_that_was_closed_before_the_fork_opens_in_the_child(files: Place) -> None:
    """As with ``gunicorn --preload``, for users who were told to close before a fork."""
    with files.open() as store:
        before = store.put(b"before")

    def child() -> None:
        with files.open() as store:
            assert store.get(before) == b"before"
            store.put(b"after")

    for _ in range(3):
        forked(child)
    with files.open() as store:
        assert store.get(BlobId.of(b"after")) == b"after"


def test_the_pickled_id_and_reports_cross_processes(local: Store) -> None:
    receipt = local.put_receipt(b"data")
    for value in (receipt, local.stat(receipt.id), local.stats(), local.gc(), local.verify()):
        assert pickle.loads(pickle.dumps(value)) == value


