"""The null control: without any one sync or any one rule of order, some power cut must do harm.

Every sync in the workloads belongs to a class: its file, and the kind of step that made it. Each class is
removed from the recording, and the states after it are judged until one is wrong. Redundant classes are
listed here with their reasons.
"""
import power

# Together they make every kind of sync.
WORKLOADS = ("put A; put B; delete A; gc; put A", "put C; delete C; gc", "relaxed; put A; full; put D",
             # The second log is not synced before its checkpoint, and does not contain every page.
             "relaxed; put A; relaxed; put B; relaxed; put C; delete B; gc")

REDUNDANT = {
    # SQLite's own order, not the store's. Not proven redundant: no tried state shows harm, because the
    # remaining log holds the pages that a checkpoint overwrites.
    ("manifests.db-wal", "closing"): "what a step promised was synced by the step",
    # Only a file that a concurrent put relies on must be found there. These workloads have one process; the
    # model of files has such puts (mutant `NoSyncMoved`).
    (".doomed/", "gc"): "no put relies on what is set aside",
    ("blocks/", "gc"): "of `.doomed`, in which no put relies on anything; and a smaller generation only finds out fewer copies",
}


# Only for packs.
REDUNDANT_IN_PACKS = {
    ("a pack", "closing"): "puts have synced it; in `relaxed` the judge verifies all before it relies on anything. The model of "
                           "packs has those that rely on it at once (mutant `SealsUnsynced`)",
    ("everything (syncfs)", "put"): "of `full` behind `relaxed`: the packs were synced when they were sealed",
}


def sync_classes(events, labels):
    """{class: numbers of its events}"""
    found, phase = {}, power.Expected()
    for number, event in enumerate(events):
        if event[0] == "say":
            phase.hear(event[1])
        elif event[0] in ("sync", "syncall"):
            what = "everything (syncfs)" if event[0] == "syncall" else labels[event[1]]
            # A store that is opened with another durability is closed first.
            when = "closing" if phase.phase in ("close", "full", "relaxed") else phase.phase
            found.setdefault((what, when), []).append(number)
    return found


def without(events, numbers):
    numbers = set(numbers)
    return [event for number, event in enumerate(events) if number not in numbers]


def later(events, moved, behind):
    """The events that `moved` accepts, each moved after the next series that `behind` accepts in the same
    step; None if there are none."""
    target, last = {}, None
    for number in reversed(range(len(events))):
        event = events[number]
        if event[0] == "say":
            last = None
        elif behind(event):
            if last is None or not behind(events[number + 1]):
                last = number
        elif moved(event) and last is not None:
            target.setdefault(last, []).insert(0, number)
    if not target:
        return None
    waiting = {number for numbers in target.values() for number in numbers}
    result = []
    for number, event in enumerate(events):
        if number not in waiting:
            result.append(event)
        # They now cover everything before them, because they begin here.
        result.extend((*events[one][:-2], event[-1] + 1, event[-1] + 1) for one in target.get(number, ()))
    return result


def orders(labels, layout):
    """Pairs of a name and a function that breaks the order."""
    def sync_of(*what):
        return lambda event: event[0] == "sync" and labels[event[1]] in what

    def block_data(event):
        return event[0] == "syncall" or sync_of("a block")(event)

    def block_name(event):
        return event[0] == "name" and labels[event[1]] == "blake3/"

    def block_gone(event):
        return event[0] == "unname" and labels[event[1]] == "blake3/"

    def id_name(event):
        return event[0] == "name" and event[2] == "store-id"

    def log_gone(event):
        return event[0] == "unname" and event[2] == "manifests.db-wal"

    def pack_name(event):
        return event[0] == "name" and labels[event[1]] == "blocks-packs/"

    def pack_gone(event):
        return event[0] == "unname" and labels[event[1]] == "blocks-packs/"

    log = sync_of("manifests.db-wal")
    of_both = {
        "store-id is named before its data is synced": lambda events: later(events, sync_of("store-id"), id_name),
        "the log is removed before the database is synced":
            lambda events: later(events, sync_of("manifests.db"), log_gone),
    }
    if layout == "packs":
        return of_both | {
            "a record is marked before its data is synced": lambda events: later(events, sync_of("a pack"), log),
            "a record is marked before the name of its pack is synced":
                lambda events: later(events, sync_of("blocks-packs/"), log),
            "a pack is created before its row is synced": lambda events: later(events, log, pack_name),
            "a pack is removed before its drop is synced": lambda events: later(events, log, pack_gone),
        }
    return of_both | {
        "a block is named before its data is synced": lambda events: later(events, block_data, block_name),
        "a put is committed before the names of its blocks are synced":
            lambda events: later(events, sync_of("blake3/"), log),
        "blocks are deleted before their doom is synced": lambda events: later(events, log, block_gone),
    }


def search(site, events, after):
    """Searches for a wrong state, first after acknowledgements, where most is expected."""
    acknowledged = {number for number, event in enumerate(events) if event[0] == "say"}
    seen = set()
    judged, wrong = power.judge_cuts(site, events, 16, lambda n: n >= after and n in acknowledged, 120, 0, seen)
    for most in (8, 60):
        if wrong:
            break
        more, wrong = power.judge_cuts(site, events, most, lambda n: after <= n < after + 40, 400, most, seen)
        judged += more
    return judged, wrong


def controls(recorded, layout):
    """{name: (reason why it is redundant or None, [(events, first event that matters)])}. The first entry
    leaves nothing out, and the same search must find nothing."""
    found = {"nothing is left out": ("as it is", [(events, 0) for events, _ in recorded])}
    redundant = REDUNDANT | (REDUNDANT_IN_PACKS if layout == "packs" else {})
    for events, labels in recorded:
        for (what, phase), numbers in sync_classes(events, labels).items():
            tries = found.setdefault(f"no sync of {what} in {phase}", (redundant.get((what, phase)), []))[1]
            tries.append((without(events, numbers), numbers[0]))
        for name, broken in orders(labels, layout).items():
            tries = found.setdefault(name, (None, []))[1]
            other = broken(events)
            if other is not None:
                # Shortly before the new position of the moved events.
                known = set(events)
                landed = next(number for number, event in enumerate(other) if event not in known)
                first = next(number for number, (one, two) in enumerate(zip(events, other)) if one != two)
                tries.append((other, max(first, landed - 20)))
    return found
