#!/usr/bin/env python3
"""Uses the shared library like an unprepared binding: cffi reads the shipped header, ctypes knows nothing.

usage: binding.py LIBRARY HEADER DIRECTORY
"""

import ctypes
import hashlib
import os
import re
import subprocess
import sys
import threading

import cffi

library, header, directory = sys.argv[1:]


def preprocess(*options):
    # Without the system's headers, which are not ours to parse; cffi knows their types.
    stubs = os.path.join(directory, "stubs")
    os.makedirs(stubs, exist_ok=True)
    for name in ("stddef.h", "stdint.h"):
        open(os.path.join(stubs, name), "w").close()
    return subprocess.run(["cc", "-E", "-P", "-nostdinc", "-I", stubs, *options, header], check=True, capture_output=True,
                          text=True).stdout


ffi = cffi.FFI()
constants = dict(re.findall(r"#define (GRAVITON_\w+) (-?\d+)(?:ull)?$", preprocess("-dM"), re.M))
ffi.cdef(preprocess() + "".join(f"#define {name} {value}\n" for name, value in constants.items() if int(value) < 2**63))
lib = ffi.dlopen(library)
NULL = ffi.NULL


class Failed(Exception):
    pass


def call(function, *arguments):
    error = ffi.new("graviton_error **")
    status = function(*arguments, error)
    if status != lib.GRAVITON_OK:
        name, message = (ffi.string(get(error[0])).decode() for get in (lib.graviton_error_name, lib.graviton_error_message))
        code = lib.graviton_error_callback_code(error[0])
        lib.graviton_error_free(error[0])
        raise Failed(name, message, code)
    assert error[0] == NULL


def opened(kind, function, *arguments):
    out = ffi.new(f"graviton_{kind} **")
    call(function, *arguments, out)
    return ffi.gc(out[0], getattr(lib, f"graviton_{kind}_free"))


def sized(kind):
    structure = ffi.new(f"graviton_{kind} *")
    structure.struct_size = ffi.sizeof(structure[0])
    return structure


def fails(name, function, *arguments):
    try:
        call(function, *arguments)
    except Failed as failed:
        assert failed.args[0] == name, failed
        return failed
    raise AssertionError(f"{name} was expected")


# A walk over the table of codes gives the header's codes.
walked = {ffi.string(lib.graviton_status_name(lib.graviton_status_at(i))).decode(): lib.graviton_status_at(i)
          for i in range(lib.graviton_status_count())}
written = {name[len("GRAVITON_ERROR_"):].lower().replace("_", "-"): int(value) for name, value in constants.items()
           if name.startswith("GRAVITON_ERROR_")}
assert walked == written and len(walked) >= 28, set(walked.items()) ^ set(written.items())
version = [constants[f"GRAVITON_VERSION_{part}"] for part in ("MAJOR", "MINOR", "PATCH")]
assert ffi.string(lib.graviton_version()).decode() == ".".join(version)

path = os.fsencode(os.path.join(directory, "store"))
store = opened("store", lib.graviton_store_open, path, len(path))
content = os.urandom(3_000_000)
receipt = sized("put_receipt")
told = []


@ffi.callback("graviton_progress_callback")
def progress(userdata, done, total):
    told.append((done, total))
    return ffi.from_handle(userdata)


options = sized("put_options")
options.progress = progress
handle = ffi.new_handle(0)
options.progress_userdata = handle
call(lib.graviton_store_put, store, content, len(content), options, receipt)
assert told[-1] == (len(content), len(content)) and receipt.created == 1

stopping = ffi.new_handle(1234)
options.progress_userdata = stopping
assert fails("cancelled", lib.graviton_store_put, store, content, len(content), options, receipt).args[2] == 1234

text = ffi.new("char[]", int(constants["GRAVITON_BLOB_ID_TEXT_MAX"]))
call(lib.graviton_blob_id_format, ffi.addressof(receipt.id), text, len(text), NULL)
algo, digest, size = ffi.string(text).decode().split(":")
assert algo == "blake3" and int(size) == len(content) and bytes(receipt.id.digest).hex() == digest

reader = opened("reader", lib.graviton_reader_open, store, ffi.addressof(receipt.id))


def read(seed):
    count, room = ffi.new("size_t *"), ffi.new("uint8_t[]", 10_000)
    for step in range(50):
        offset = (seed * 7919 + step * 104_729) % len(content)
        call(lib.graviton_reader_read_at, reader, offset, room, len(room), count)
        assert bytes(ffi.buffer(room, count[0])) == content[offset:offset + len(room)]


threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# Released before the reader, which still works.
ffi.release(store)
read(1)
fails("invalid-argument", lib.graviton_reader_read_at, NULL, 0, NULL, 0, NULL)

# ctypes, with the fewest possible declarations.
plain = ctypes.CDLL(library)
plain.graviton_error_message.restype = plain.graviton_version.restype = ctypes.c_char_p
plain.graviton_error_message.argtypes = plain.graviton_error_free.argtypes = [ctypes.c_void_p]


class Id(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("algo", ctypes.c_int32), ("reserved", ctypes.c_uint32), ("digest", ctypes.c_uint8 * 32)]


one, failure = Id(), ctypes.c_void_p()
assert plain.graviton_blob_id_of(2, b"abc", ctypes.c_size_t(3), ctypes.byref(one), None) == 0
assert bytes(one.digest) == hashlib.sha256(b"abc").digest() and one.size == 3
assert plain.graviton_blob_id_parse(b"?", ctypes.c_size_t(1), ctypes.byref(one), ctypes.byref(failure)) == written["invalid-id"]
assert b"not a blob id" in plain.graviton_error_message(failure)
plain.graviton_error_free(failure)
print(f"cffi and ctypes: {plain.graviton_version().decode()}, {len(walked)} codes")
