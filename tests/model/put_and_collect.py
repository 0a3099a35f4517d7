#!/usr/bin/env python3
"""An explicit-state check of docs/FORMAT.md, "Putting" and "Collecting": no interleaving loses a block.

One block; writers that put blobs made of it, by the long path (the reference is the pin) or the short one (bytes first,
one transaction); collectors; deletion of any blob, expiry and crash of any writer at any moment; a collector that loses
its database session and goes on deleting (a zombie); and power cuts. Grace is zero. Every transaction is one step, for
it holds the row's lock; what happens on the filesystem is one step each, under no lock.

Power: a directory entry reaches the disk at the latest when somebody syncs the directory, a transaction at the latest
with the next one that is synced (a commit, a doom). Both may get there at any moment before, in order. A power cut ends
every process and brings back what is on the disk. A file's data is synced before it gets the name, so that whatever
stands under the name is whole; the mutant `namefirst` shows why.

Properties:
  1. A blob that is live, or deleted and not yet reaped, has its block's row and its bytes, also after a power cut.
  2. A row never says `stored` when there are no bytes, except under the lock of the collector that deletes them.

usage: [BOUNDS="writers collectors puts runs cuts"] put_and_collect.py [mutant | --mutants]
Prints the number of states, or the shortest run that breaks a property. Exit code: 0 holds, 1 broken, 2 no answer.
"""
import os
import sys
from collections import deque

MUTANTS = {
    "noref": "the pin inserts no reference",
    "nocheck": "a commit does not look whether its blob is still pending",
    "nostored": "bytes are deleted while the row still says stored",
    "nodoom": "nobody waits for a doom",
    "steal": "a collector ignores another's doom",
    "noproof": "the short path finds a file under the name enough, whoever wrote it",
    "shortdoom": "the short path ignores a doom",
    "nosyncname": "commits come before the directory is synced",
    "namefirst": "a file gets its name before its data is synced",
    "lazydoom": "a doom is committed without a sync",
    # Why publish.rs leaves the names of a failed batch alone: another writer may have replaced the file, synced the
    # directory and committed in the meantime. Only a collector may delete, for only it looks for references first.
    "unlinkfail": "after a failed directory sync the writer removes the name",
}
M = frozenset(sys.argv[1:])
NW, NG, PUTS, RUNS, CUTS = map(int, os.environ.get("BOUNDS", "2 1 1 1 1").split())
LIMIT = int(os.environ.get("LIMIT", "20000000"))

# A state is (row, lock, name, disk, blobs, safe, writers, collectors, cuts):
#   row         None or (stored, candidate, doomed_by)
#   lock        the collector that holds the row's lock over several steps, or None
#   name        the file under the block's name: None, or (the writer that put it there or OTHER, whether its data is synced)
#   disk        what a power cut would leave under the name: None or whether its data is synced
#   blobs       how many are (live, deleted, expired); the pending ones are their writers'
#   safe        what a power cut would leave of the database: (row, blobs)
#   writers     (pc, mine, got, done): its blob's state, whether the pin said `stored`, how many puts it has done
#   collectors  (pc, runs)
OTHER = -1
IDLE = ("idle", None, False)


def references(blobs, ws):
    return sum(blobs) + sum(w[1] == "pending" for w in ws)


def database(row, blobs, ws):
    """What is kept if it is synced now. A pending blob whose writer is gone is as good as expired."""
    live, deleted, expired = blobs
    return row, (live, deleted, expired + sum(w[1] == "pending" for w in ws))


def nexts(s):
    row, lock, name, disk, blobs, safe, ws, gs, cuts = s
    live, deleted, expired = blobs
    free = lock is None
    doomed = row is not None and row[2] is not None

    def to(step, row=row, lock=lock, name=name, disk=disk, blobs=blobs, ws=ws, gs=gs, synced=False):
        if name and name[0] != OTHER and ws[name[0]][0] == "idle":
            name = (OTHER, name[1])          # nobody asks any more who wrote it
        if not cuts:
            return step, (row, lock, name, None, blobs, None, ws, gs, 0)
        return step, (row, lock, name, disk, blobs, database(row, blobs, ws) if synced else safe, ws, gs, cuts)

    if live:
        yield to("delete a blob", blobs=(live - 1, deleted + 1, expired))
    for i, (pc, mine, got, done) in enumerate(ws):
        def w(pc, mine=mine, got=got):
            return ws[:i] + ((pc, mine, got, done),) + ws[i + 1:]
        ended = ws[:i] + (IDLE + (done + 1,),) + ws[i + 1:]
        given_up = dict(ws=ended, blobs=(live, deleted, expired + (mine == "pending")))

        if mine == "pending":
            yield to(f"w{i} expires", ws=w(pc, "expired"), blobs=(live, deleted, expired + 1))
        if pc == "idle" and done < PUTS:
            if row and row[0]:
                yield to(f"w{i} short: the row says stored", ws=w("short commit"))
            yield to(f"w{i} short: write", name=(i, "namefirst" not in M), ws=w("short sync"))
        elif pc in ("short sync", "sync"):
            # The directory, and whatever else happened in it. In `namefirst` also the data of the own file.
            now = (i, True) if name and name[0] == i else name
            commit = "short commit" if pc == "short sync" else "commit"
            yield to(f"w{i} sync", name=now, disk=now and now[1], ws=w(commit))
            yield to(f"w{i} sync fails", name=None if "unlinkfail" in M else name, **given_up)
            if "nosyncname" in M:
                yield to(f"w{i} no sync", ws=w(commit))
        elif pc == "short commit" and free:
            mine_in_place = name is not None and (name[0] == i or "noproof" in M)
            stored = row is not None and row[0]
            if (not doomed or "shortdoom" in M) and (stored or mine_in_place):
                yield to(f"w{i} short: commit", row=(True, row[1] if row else False, None),
                         blobs=(live + 1, deleted, expired), ws=ended, synced=True)
            else:
                yield to(f"w{i} short: not in place", ws=w("pin"))
        elif pc == "write":
            yield to(f"w{i} write", name=(i, "namefirst" not in M), ws=w("sync"))
        elif pc == "commit" and free:
            if row and (mine == "pending" or M & {"nocheck", "noref"}):
                full = (True, row[1], row[2])
                if not row[0] and not got:
                    yield to(f"w{i} mark stored", row=full, ws=w(pc, got=True))
                yield to(f"w{i} commit", row=full if not got else row, blobs=(live + 1, deleted, expired), ws=ended,
                         synced=True)
            else:
                yield to(f"w{i} commit refused", ws=ended)
        if (pc == "pin" or pc == "idle" and done < PUTS) and free and (not doomed or "nodoom" in M):
            has = row is not None and row[0]
            yield to(f"w{i} pin, stored={has}", row=row or (False, False, None),
                     ws=w("commit" if has else "write", None if "noref" in M else "pending", has))
        if pc != "idle":
            yield to(f"w{i} crashes", **given_up)

    for i, (pc, runs) in enumerate(gs):
        def g(pc, runs=runs):
            return gs[:i] + ((pc, runs),) + gs[i + 1:]
        if pc == "idle" and runs < RUNS:
            yield to(f"g{i} start", gs=g("reap", runs + 1))
        elif pc == "reap":
            if free and row is not None:
                marked = (row[0], True, row[2])
                if deleted:
                    yield to(f"g{i} reap a deleted blob", row=marked, blobs=(live, deleted - 1, expired))
                if expired:
                    yield to(f"g{i} reap an expired blob", row=marked, blobs=(live, deleted, expired - 1))
            yield to(f"g{i} has reaped", gs=g("doom"))
        elif pc == "doom":
            if row and row[1] and free and (not doomed or "steal" in M):
                if references(blobs, ws):
                    yield to(f"g{i} referenced: unmark", row=(row[0], False, row[2]), gs=g("idle"))
                else:
                    yield to(f"g{i} doom", row=(row[0] and "nostored" in M, True, i), gs=g("sweep"),
                             synced="lazydoom" not in M)
            yield to(f"g{i} nothing to doom", gs=g("idle"))
        elif pc == "sweep" and free:
            if row and row[2] == i and not references(blobs, ws):
                yield to(f"g{i} lock to sweep", lock=i, gs=g("unlink"))
            else:
                kept = row and (row[0], row[1], None if row[2] == i else row[2])
                yield to(f"g{i} gives up", row=kept, gs=g("idle"))
        elif pc == "unlink":
            yield to(f"g{i} delete the bytes", name=None, gs=g("drop"))
            yield to(f"g{i} loses its session", lock=None, gs=g("zombie"))
        elif pc == "drop":
            # Synced before the row goes. Somebody may have put the file back in the meantime: that is synced with it.
            yield to(f"g{i} commit the deletion of the row", row=None, lock=None, disk=name and name[1], gs=g("idle"))
        elif pc == "zombie":                    # within its 30 seconds it may still delete
            yield to(f"g{i} ZOMBIE deletes the bytes", name=None, gs=g("idle"))
        if pc != "idle":
            yield to(f"g{i} crashes", lock=None if lock == i else lock, gs=g("idle"))
    # A doom runs out, but never while its collector can still delete: that is what the 30 and the 60 seconds are for.
    if doomed and gs[row[2]][0] not in ("unlink", "drop", "zombie"):
        yield to("the doom runs out", row=(row[0], row[1], None))

    if cuts:
        if disk != (name and name[1]):
            yield to("the directory reaches the disk", disk=name and name[1])
        if safe != database(row, blobs, ws):
            yield to("the database reaches the disk", synced=True)
        after = (safe[0], None, None if disk is None else (OTHER, disk), disk, safe[1], safe,
                 tuple(IDLE + (min(done + (pc != "idle"), PUTS),) for pc, _, _, done in ws),
                 tuple(("idle", runs) for _, runs in gs), cuts - 1)
        yield "POWER CUT", after if after[8] else after[:3] + (None, after[4], None) + after[6:]


def broken(s, step):
    row, lock, name, _, (live, deleted, _), _, _, _, _ = s
    if step == "POWER CUT" and name and not name[1]:
        name = None                             # what was not synced is gone, whatever is under the name
    if live + deleted and (row is None or name is None):
        return "a referenced block is gone"
    if row and row[0] and name is None and lock is None:
        return "a row says stored and the bytes are gone"
    return None


def run_to(came, s):
    steps = []
    while came[s]:
        s, step = came[s]
        steps.append(step)
    return "\n  ".join(reversed(steps))


def main():
    if M == {"--mutants"}:
        print("\n".join(MUTANTS))
        return 0
    if not M <= MUTANTS.keys():
        sys.exit("mutants:\n" + "\n".join(f"  {name}: {what}" for name, what in MUTANTS.items()))
    row, blobs = (True, False, None), (1, 0, 0)
    start = (row, None, (OTHER, True), True if CUTS else None, blobs, (row, blobs) if CUTS else None,
             (IDLE + (0,),) * NW, (("idle", 0),) * NG, CUTS)
    came = {start: None}
    todo = deque([start])
    while todo:
        s = todo.popleft()
        for step, t in nexts(s):
            if t in came:
                continue
            came[t] = (s, step)
            why = broken(t, step)
            if why:
                print(f"BROKEN after {len(came)} states: {why}\n  {run_to(came, t)}")
                return 1
            todo.append(t)
        if len(came) > LIMIT:
            print(f"no answer within {LIMIT} states")
            return 2
    print(f"holds in {len(came)} states")
    return 0


if __name__ == "__main__":
    sys.exit(main())
