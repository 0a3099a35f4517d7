"""A well-behaved module: quiet at import and at exit, documented, and with examples that work."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import graviton
import graviton.aio
import pytest
from conftest import Place

# All modules of the package except its program.
MODULES = [
    importlib.import_module(f"graviton.{module.name}")
    for module in pkgutil.iter_modules(graviton.__path__)
    if module.name != "__main__"
]


def python(program: str, *arguments: str, code: int = 0) -> str:
    """Runs a program with all warnings as errors, and returns everything that it wrote."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == code, done.stdout
    return done.stdout


def test_import_and_exit_are_quiet(tmp_path: Path) -> None:
    assert python("import graviton") == ""
    path = str(tmp_path / "store")
    open_all = "import graviton, sys; s = graviton.open(sys.argv[1]); r = s.open(s.put(b'x' * 100_000)); r.read(5)"
    # Any object may be left open, and they may be dropped in any order.
    for program in (open_all, f"{open_all}; del s", f"{open_all}; del r", f"{open_all}; s.close()", f"{open_all}; s.me = s; s.r = r"):
        assert python(program, path) == ""


def test_a_program_that_has_not_set_up_logging_is_told_nothing() -> None:
    assert python("import graviton, logging; logging.getLogger('graviton').warning('damage')") == ""


def test_an_import_of_everything_hides_no_builtin() -> None:
    import builtins

    for module in (graviton, graviton.aio):
        assert [name for name in module.__all__ if hasattr(builtins, name)] == []


def test_exit_does_not_wait_for_threads_that_never_end(tmp_path: Path) -> None:
    program = """
import graviton, sys, threading, time
from pathlib import Path
store = graviton.open(sys.argv[1])
def work():
    while True:
        store.get(store.put(b"x" * 100_000))
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
threading.Thread(target=lambda: store.put(Path("/dev/zero")), daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(5):
        assert python(program, str(tmp_path / "store")) == ""


def test_a_writer_left_open_at_exit_warns(tmp_path: Path) -> None:
    program = "import graviton, sys; w = graviton.open(sys.argv[1]).writer(); w.write(b'x'); del w"
    assert "ResourceWarning: unclosed <graviton.BlobWriter, open>" in python(program, str(tmp_path / "store"))


def test_the_interpreter_can_be_started_again_in_a_thread(tmp_path: Path) -> None:
    """Stores outlive the thread that opened them."""
    import threading

    stores: list[graviton.Store] = []
    thread = threading.Thread(target=lambda: stores.append(graviton.open(tmp_path / "store")))
    thread.start()
    thread.join()
    with stores[0] as store:
        assert store.get(store.put(b"data")) == b"data"


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """The public names of a module, with the methods of its classes."""
    found: list[tuple[str, Any]] = [(module.__name__, module)]
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            found.append((name, value))
        if inspect.isclass(value):
            # Of the class, and of its bases in the package.
            classes = [base for base in value.__mro__ if base.__module__.partition(".")[0] == "graviton"]
            members = [member for base in classes for member in vars(base).items()]
            found += [(f"{name}.{member}", thing) for member, thing in members if is_public_member(member, thing)]
    return found


def is_public_member(name: str, thing: object) -> bool:
    return not name.startswith("_") and (inspect.isroutine(thing) or isinstance(thing, property | classmethod))


def test_everything_has_a_docstring() -> None:
    without = [name for name, value in public(graviton) if not inspect.getdoc(value)]
    assert without == []
    for cls in (graviton._graviton.Store, graviton._graviton.Reader, graviton._graviton.Writer):
        assert all(inspect.getdoc(value) for name, value in vars(cls).items() if not name.startswith("_"))
    assert "content-addressed" in (graviton.__doc__ or "")


def test_help_reads_well() -> None:
    import pydoc

    # From Python 3.13 on, long signatures take several lines.
    text = " ".join(pydoc.plain(pydoc.render_doc(graviton)).split())
    for expected in ("class Store", "class BlobId", "progress: ", "NotFoundError", "Return the content of a blob"):
        assert expected in text


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for module in (graviton, *MODULES):
        for test in finder.find(module, module.__name__):
            if test.examples:
                found[test.name.replace("graviton._", "graviton:_")] = test
    return list(found.values())


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example(example: doctest.DocTest, files: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAVITON_FS_ROOT", "")
    monkeypatch.chdir(tmp_path)
    with files.open() as store:
        example.globs = {
            "graviton": graviton,
            "store": store,
            "directory": str(tmp_path / "directory"),
            "io": io,
            "os": os,
            "__file__": __file__,
            "__name__": "__main__",
        }
        out = io.StringIO()
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=out.write)
    assert result.failed == 0 and result.attempted > 0, out.getvalue()


def test_there_are_examples() -> None:
    assert len(examples()) > 25


def test_the_readme_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = Path(__file__).resolve().parents[1] / "README.md"
    programs = [part.split("```")[0] for part in readme.read_text().split("```python\n")[1:]]
    assert len(programs) == 2
    for program in programs:
        exec(program, {})


def test_the_version_is_that_of_the_wheel() -> None:
    from importlib.metadata import version

    assert graviton.__version__ == version("graviton")


def test_other_interpreters_of_a_process_are_refused(tmp_path: Path) -> None:
    """A module that keeps objects of one interpreter must not hand them to another."""
    code = """
import sys
try:
    import _interpreters as interpreters
    other = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False)
IMPORT = '''
try:
    import graviton
except ImportError as error:
    assert "main interpreter" in str(error), error
else:
    raise AssertionError("it was imported")
'''
# Before the main one has it, and after.
assert interpreters.run_string(other, IMPORT) is None
import graviton
assert interpreters.run_string(other, IMPORT) is None
with graviton.open(sys.argv[1]) as store:
    assert store.get(store.put(b"still works")) == b"still works"
print("done")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
