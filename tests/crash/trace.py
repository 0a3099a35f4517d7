"""The changes of a program to the filesystem: `strace` runs it, and its calls become events of `disk.py`, in
order.

Only files below one directory count. Descriptors are followed by number, because all threads share them; an
unnamed file (`O_TMPFILE`) has no path anyway. An event happens at the end of its call. For a sync the
beginning counts too, because it covers only calls that had ended before.
"""
import os
import re
import subprocess

CALLS = ("openat,open,creat,close,write,writev,pwrite64,pwritev,lseek,fsync,fdatasync,syncfs,sync,linkat,link,rename,"
         "renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,truncate,fallocate,dup,dup2,dup3,fcntl,"
         "copy_file_range,sendfile,pwritev2,sync_file_range,symlink,symlinkat")
LINE = re.compile(r"^(\d+) +(.*)$")
CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+|\?)(.*)$", re.S)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
# More than any relevant write.
LONGEST = 1 << 16


class Call:
    def __init__(self, name, arguments, result, begin, end):
        self.name, self.arguments, self.result, self.begin, self.end = name, arguments, result, begin, end

    def strings(self):
        return [bytes.fromhex(found.group(1).replace("\\x", "")) for found in STRING.finditer(self.arguments)]

    def words(self):
        """The arguments, with each string as `"`."""
        return [word.strip() for word in STRING.sub('"', self.arguments).split(",")]


def record(command, file, environment):
    """Runs a command. Returns its calls and its output."""
    done = subprocess.run(["strace", "-f", "-qq", "-xx", "-s", str(LONGEST), "-e", "signal=none", "-e", "trace=" + CALLS,
                           "-o", file, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=60, env=environment)
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{said}")
    return list(calls(file))


def calls(file):
    begun, found = {}, []
    with open(file) as lines:
        for number, line in enumerate(lines):
            thread, text = LINE.match(line.rstrip("\n")).groups()
            if text.endswith("<unfinished ...>"):
                begun[thread] = (number, text[:-len("<unfinished ...>")].rstrip())
                continue
            begin = number
            if text.startswith("<... "):
                begin, start = begun.pop(thread)
                text = start + text.split("resumed>", 1)[1]
            call = CALL.match(text)
            if call:
                name, arguments, result, _ = call.groups()
                found.append(Call(name, arguments, -1 if result == "?" else int(result), begin, number))
    # A descriptor is free once its close begins: another thread may get the number before the close ends.
    found.sort(key=lambda call: call.begin if call.name == "close" else call.end)
    return found


class Open:
    """An open file; descriptors that were duplicated share it."""

    def __init__(self, node, path):
        self.node, self.path, self.position = node, path, 0


class Replay:
    """Turns calls into events: ("say", text), ("made", node, directory?), ("write", file, offset, bytes),
    ("cut", file, length), ("name", directory, name, node), ("unname", directory, name), ("sync", node) and
    ("syncall",), each with the times of its begin and end. Calls on the reserve are left out, because it is
    only space. Nodes are numbers; 0 is the root directory, which a power cut leaves."""

    def __init__(self, base):
        self.base = base
        self.tree = {0: {}}
        self.sizes = {}
        self.labels = {0: "parent of the root"}
        self.events = []
        self.descriptors = {1: "said"}
        self.nodes = 1

    def run(self, calls):
        for call in calls:
            if call.result >= 0:
                getattr(self, "do_" + call.name, self.unknown)(call)
        return self.events

    def unknown(self, call):
        raise RuntimeError(f"nobody thought of {call.name}({call.arguments[:200]})")

    def emit(self, call, *event):
        self.events.append((*event, call.begin, call.end))

    # -- Names

    def place(self, at, path):
        """The directory's node and the name; None if it is outside."""
        path = os.fsdecode(path)
        if path.startswith("/"):
            if not (path + "/").startswith(self.base + "/"):
                return None
            node, rest = 0, path[len(self.base):]
        else:
            start = self.descriptors.get(int(at)) if at.isdigit() else None
            if not isinstance(start, Open) or start.node is None:
                return None
            node, rest = start.node, path
        parts = [part for part in rest.split("/") if part not in ("", ".")]
        for part in parts[:-1]:
            node = self.tree[node].get(part)
            if node is None:
                return None
        return (node, parts[-1]) if parts else (node, ".")

    def node_at(self, place):
        return place[0] if place[1] == "." else self.tree[place[0]].get(place[1])

    def new(self, call, place, directory=False):
        node, self.nodes = self.nodes, self.nodes + 1
        if directory:
            self.tree[node] = {}
        else:
            self.sizes[node] = 0
        self.labels[node] = self.label(place, directory)
        self.emit(call, "made", node, directory)
        if place is not None:
            self.name(call, place, node)
        return node

    def label(self, place, directory):
        """A description of the node, for people and for the null control."""
        if place is None:
            return "a block"
        name = place[1]
        if directory:
            return "the root" if place[0] == 0 else f"{name}/"
        if name.endswith(".pack"):
            return "a pack"
        # A database is created under a temporary name, which differs in each run.
        made = {"store-id": "store-id", "reserve": "reserve", "collection": "collection", "manifests-": "manifests.db"}
        return next((what for start, what in made.items() if name.startswith((start, "." + start))), name)

    def name(self, call, place, node):
        self.tree[place[0]][place[1]] = node
        if self.labels[node] != "reserve":
            self.emit(call, "name", place[0], place[1], node)

    def unname(self, call, place):
        node = self.tree[place[0]].pop(place[1])
        if self.labels[node] != "reserve":
            self.emit(call, "unname", place[0], place[1])

    # -- Calls

    def opened(self, call, at, path, flags):
        place = self.place(at, path)
        node = None
        if place is not None:
            if "O_TMPFILE" in flags:
                node = self.new(call, None)
            else:
                node = self.node_at(place)
                if node is None and "O_CREAT" in flags:
                    node = self.new(call, place)
                elif node is not None and "O_TRUNC" in flags and self.sizes.get(node):
                    self.cut(call, node, 0)
        self.descriptors[call.result] = Open(node, path)

    def do_openat(self, call):
        words = call.words()
        self.opened(call, words[0], call.strings()[0], words[2])

    def do_open(self, call):
        self.opened(call, "", call.strings()[0], call.words()[1])

    def do_close(self, call):
        self.descriptors.pop(int(call.words()[0]), None)

    def duplicate(self, call):
        source = self.descriptors.get(int(call.words()[0]))
        if source is not None:
            self.descriptors[call.result] = source

    do_dup = do_dup2 = do_dup3 = duplicate

    def do_fcntl(self, call):
        if "F_DUPFD" in call.words()[1]:
            self.duplicate(call)

    def file(self, call):
        found = self.descriptors.get(int(call.words()[0]))
        return found if isinstance(found, Open) and found.node is not None else None

    def do_write(self, call):
        if self.descriptors.get(int(call.words()[0])) == "said":
            self.emit(call, "say", call.strings()[0].decode().strip())
        elif file := self.file(call):
            self.write(call, file.node, file.position, b"".join(call.strings())[:call.result])
            file.position += call.result

    do_writev = do_write

    def do_pwrite64(self, call):
        if file := self.file(call):
            self.write(call, file.node, int(call.words()[-1]), call.strings()[0][:call.result])

    def do_pwritev(self, call):
        if file := self.file(call):
            self.write(call, file.node, int(call.words()[-1]), b"".join(call.strings())[:call.result])

    def write(self, call, node, offset, data):
        if self.labels[node] == "reserve":
            return
        if len(data) < call.result:
            raise RuntimeError(f"a write of {call.result} bytes is too long to be followed")
        self.sizes[node] = max(self.sizes[node], offset + len(data))
        self.emit(call, "write", node, offset, data)

    def do_lseek(self, call):
        if file := self.file(call):
            file.position = call.result

    def cut(self, call, node, length):
        self.sizes[node] = length
        self.emit(call, "cut", node, length)

    def do_ftruncate(self, call):
        if file := self.file(call):
            self.cut(call, file.node, int(call.words()[1]))

    def do_fallocate(self, call):
        if file := self.file(call):
            words = call.words()
            offset, length = int(words[2]), int(words[3])
            if "PUNCH_HOLE" in words[1]:
                self.emit(call, "write", file.node, offset, bytes(length))
            elif offset + length > self.sizes[file.node]:
                self.cut(call, file.node, offset + length)

    def do_fsync(self, call):
        if file := self.file(call):
            self.emit(call, "sync", file.node)

    do_fdatasync = do_fsync

    def do_syncfs(self, call):
        self.emit(call, "syncall")

    do_sync = do_syncfs

    def do_sync_file_range(self, call):
        """A call without effect on durability."""

    def do_mkdir(self, call):
        if place := self.place("", call.strings()[0]):
            self.new(call, place, directory=True)

    def do_mkdirat(self, call):
        if place := self.place(call.words()[0], call.strings()[0]):
            self.new(call, place, directory=True)

    def linked(self, call, source_at, source, at, path):
        place = self.place(at, path)
        if place is None:
            return
        if source.startswith(b"/proc/self/fd/"):
            node = self.descriptors[int(source.rsplit(b"/", 1)[1])].node
        else:
            node = self.node_at(self.place(source_at, source))
        self.name(call, place, node)

    def do_linkat(self, call):
        words, strings = call.words(), call.strings()
        self.linked(call, words[0], strings[0], words[2], strings[1])

    def do_link(self, call):
        self.linked(call, "", call.strings()[0], "", call.strings()[1])

    def renamed(self, call, source, target):
        if source is None or target is None:
            return
        self.name(call, target, self.node_at(source))
        self.unname(call, source)

    def do_renameat(self, call):
        words, strings = call.words(), call.strings()
        self.renamed(call, self.place(words[0], strings[0]), self.place(words[2], strings[1]))

    do_renameat2 = do_renameat

    def do_rename(self, call):
        self.renamed(call, *(self.place("", path) for path in call.strings()))

    def do_unlinkat(self, call):
        if place := self.place(call.words()[0], call.strings()[0]):
            self.unname(call, place)

    def do_unlink(self, call):
        if place := self.place("", call.strings()[0]):
            self.unname(call, place)

    do_rmdir = do_unlink
