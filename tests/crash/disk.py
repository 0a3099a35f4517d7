"""A disk that may lose its power. It keeps synced and unsynced changes apart, and knows the states that a cut
may leave.

It assumes less than any filesystem promises:
- A synced file has its bytes, if a name leads to it. Its own sync need not make its name durable.
- A synced directory has its names. Each name that was given or taken since its last sync may be there or not;
  for one name, a later change is there only if the earlier ones are.
- Any of a file's writes since its last sync may be there: none, all, some, the last one in part, or its
  length alone.
- A rename may leave both names, or none.
"""
import itertools


class File:
    def __init__(self):
        self.done, self.waiting = [], []


class Directory:
    def __init__(self):
        self.names, self.waiting = {}, []


def written(changes):
    data = bytearray()
    for change in changes:
        if change[0] == "cut":
            length = change[1]
            del data[length:]
            data.extend(bytes(length - len(data)))
        else:
            _, offset, piece = change[:3]
            if offset > len(data):
                data.extend(bytes(offset - len(data)))
            data[offset:offset + len(piece)] = piece
    return bytes(data)


class Disk:
    def __init__(self):
        self.nodes = {0: Directory()}

    def apply(self, event):
        kind, begin, end = event[0], event[-2], event[-1]
        if kind == "made":
            self.nodes[event[1]] = Directory() if event[2] else File()
        elif kind in ("write", "cut"):
            self.nodes[event[1]].waiting.append(((kind, *event[2:-2]), end))
        elif kind == "name":
            _, directory, name, node = event[:4]
            self.nodes[directory].waiting.append((name, node, end))
        elif kind == "unname":
            self.nodes[event[1]].waiting.append((event[2], None, end))
        elif kind == "sync":
            self.sync(event[1], begin)
        elif kind == "syncall":
            for node in self.nodes:
                self.sync(node, begin)

    def sync(self, node, before):
        node = self.nodes.get(node)
        if node is None:
            return
        rest = []
        for change in node.waiting:
            if change[-1] >= before:
                rest.append(change)
            elif isinstance(node, File):
                node.done.append(change[0])
            else:
                name, target, _ = change
                if target is None:
                    node.names.pop(name, None)
                else:
                    node.names[name] = target
        node.waiting = rest
        if isinstance(node, File) and len(node.done) > 1:
            node.done = [("write", 0, written(node.done))]

    # -- States after a cut

    def choices(self, random):
        """The open points of the state after a cut: (node, name or None, the possibilities). The first
        possibility is that no change is left, the last that every change is."""
        found, todo, seen = [], [0], {0}
        while todo:
            number = todo.pop()
            node = self.nodes[number]
            if isinstance(node, File):
                if node.waiting:
                    found.append((number, None, self.contents(node, random)))
                continue
            changes = {}
            for name, target, _ in node.waiting:
                changes.setdefault(name, [node.names.get(name)]).append(target)
            found.extend((number, name, targets) for name, targets in changes.items() if not name.endswith("-shm"))
            reached = [node.names.values(), *changes.values()]
            for target in itertools.chain(*reached):
                if target is not None and target not in seen and target in self.nodes:
                    seen.add(target)
                    todo.append(target)
        return found

    @staticmethod
    def contents(file, random):
        changes = [change for change, _ in file.waiting]
        possible = [file.done]
        # The length is there, but the bytes are not.
        possible.append([*file.done, ("cut", len(written([*file.done, *changes])))])
        for count in random.sample(range(len(changes)), min(len(changes), 4)):
            part = [*file.done, *changes[:count]]
            possible.append(part)
            if changes[count][0] == "write":
                _, offset, piece = changes[count]
                possible.append([*part, ("write", offset, piece[:random.randrange(1, max(len(piece), 2))])])
        if len(changes) > 1:
            possible.append([*file.done, *(change for change in changes if random.random() < 0.5)])
            possible.append([*file.done, *changes[1:]])
        distinct = {written(part): part for part in [*possible, [*file.done, *changes]]}
        return list(distinct)

    def states(self, most, random):
        """Trees, as {path: bytes, or None for a directory}: all of them, or at most this many."""
        choices = self.choices(random)
        number = 1
        for _, _, possible in choices:
            number *= len(possible)
        sizes = [len(possible) for _, _, possible in choices]
        if number <= most:
            picks = itertools.product(*(range(size) for size in sizes))
        else:
            picks = self.some(sizes, most, random)
        seen = set()
        for pick in picks:
            tree = self.tree({(node, name): possible[index]
                              for (node, name, possible), index in zip(choices, pick)})
            key = hash(frozenset(tree.items()))
            if key not in seen:
                seen.add(key)
                yield key, tree

    @staticmethod
    def some(sizes, most, random):
        """Nothing and everything; all but one and only one; and random choices."""
        nothing, everything = [0] * len(sizes), [size - 1 for size in sizes]
        singles = []
        for ends in (everything, nothing):
            for at, size in enumerate(sizes):
                singles.extend([*ends[:at], index, *ends[at + 1:]] for index in range(size) if index != ends[at])
        random.shuffle(singles)
        yield nothing
        yield everything
        yield from singles[:most * 2 // 3]
        for _ in range(max(most // 3, 1)):
            odds = random.random()
            yield [size - 1 if random.random() < odds else random.randrange(size) for size in sizes]

    def tree(self, chosen):
        tree, todo = {}, [("", 0)]
        while todo:
            path, number = todo.pop()
            node = self.nodes[number]
            names = dict(node.names)
            names.update({name: chosen.get((number, name), names.get(name)) for name, _, _ in node.waiting})
            for name, target in names.items():
                # The shared memory of SQLite is never durable.
                if target is None or name.endswith("-shm"):
                    continue
                at = f"{path}/{name}"
                if at in tree:
                    continue
                if isinstance(self.nodes[target], Directory):
                    tree[at] = None
                    todo.append((at, target))
                else:
                    tree[at] = chosen.get((target, None)) if (target, None) in chosen else written(self.nodes[target].done)
        return tree
