//! Deleting objects: one block in a bucket, and deletes that the server carries out late.
//!
//! Time goes in steps of 15 minutes. A delete is dated; the server refuses it 15 minutes later, by a clock
//! that may be another 15 minutes behind. Until then it may carry it out at any moment, even if the client
//! has stopped waiting, died, or sent another delete. The answer may be lost.
//!
//! # The rules
//! 1. *Date*: the date of every delete of a batch is taken before the doom is sent.
//! 2. *Doom*, one synced transaction: rows that nothing references and that have no doom, or one that has
//!    ended, get `stored` = 0, `doomed_by`, and `doomed_until` = now + 30 minutes.
//! 3. *Delete*, outside of transactions. A stall before the call is harmless: the date is older than the
//!    doom.
//! 4. *Settle*, one transaction, for the rows that this collection still dooms, that nothing refers to and
//!    that are in no pack. A row goes if every request for it was answered, at least one by "gone". If every
//!    request was answered otherwise, its doom is lifted. If one was not answered, the row keeps its doom,
//!    even if a later request for the same object was answered.
//! 5. A put that meets a doom that has not ended writes the block into a pack, where no DELETE of the name
//!    matters; the row points there, and keeps the doom. Without packs it fails with `backend-unavailable`
//!    and the remaining time. A put lifts a doom that has ended, and writes the object. A row in a pack is
//!    released only when its doom is over, because a later put would write the name.
//! 6. Nothing else lifts a doom, not even that of a dead process: its requests may be on their way.
//!
//! # Assumptions
//! The server refuses a request by its date (S3 does; see the mutant `GatewayLate`), and its clock and the
//! client's are at most 15 minutes apart. The database's clock does not jump.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use crate::mutants::mutants;
use crate::turn::Turn;

const WRITERS: usize = 2;
const COLLECTORS: usize = 2;
const REQUESTS: usize = 4;
/// How long after its date the server may carry out a delete.
const VALID: u8 = 2;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    what: &'static str,
    puts: [u8; WRITERS],
    runs: [u8; COLLECTORS],
    /// The last moment.
    end: u8,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; puts {:?}; collections {:?}", self.what, self.puts, self.runs)
    }
}

pub(crate) const SHORT_LEG: &[Bounds] = &[
    Bounds { name: "objects", what: "two puts, two collections", puts: [1, 1], runs: [1, 1], end: 3 },
    Bounds { name: "objects-again", what: "a collector that runs twice", puts: [2, 0], runs: [2, 0], end: 5 },
];

pub(crate) const LONG_LEG: &[Bounds] =
    &[Bounds { name: "objects-long", what: "the same for longer", puts: [1, 1], runs: [1, 1], end: 5 }];

mutants! {
    ShortDoom "objects" "earlier: the doom ends before the server refuses the delete",
    GatewayLate "objects" "a gateway carries out a delete later than any bound",
    DatesLate "objects" "a delete is dated when it is sent, after a stall",
    RetryDatesAnew "objects" "a second attempt has a date of its own",
    LiftsUnknown "objects" "a doom is lifted although a request was not answered",
    RetryIsEnough "objects" "the row goes when a second attempt is answered, whatever became of the first",
    LiftsTheDead "objects" "the dooms of a dead collection are lifted",
    SettlesBlindly "objects" "the row goes without a look at whose doom it has",
    StolenDoom "objects" "a collector ignores another's doom",
    IgnoresDoom "objects" "a put does not heed a doom",
    NoReference "objects" "a pin inserts no reference",
    CommitUnchecked "objects" "a commit does not look whether its blob is still pending",
    StaysStored "objects" "a doomed row still says stored",
    SettlesInUse "objects" "the row goes although the block is in a pack by now, and in use",
    ReleasesDoomed "objects-again" "a row in a pack is released while its name is doomed",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    now: u8,
    row: Option<Row>,
    object: bool,
    live: u8,
    deleted: u8,
    expired: u8,
    writers: [Writer; WRITERS],
    collectors: [Collector; COLLECTORS],
    requests: [Option<Request>; REQUESTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row {
    stored: bool,
    /// The row points into a pack.
    packed: bool,
    candidate: bool,
    doom: Option<Doom>,
}

impl Row {
    const NEW: Row = Row { stored: false, packed: false, candidate: false, doom: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Doom {
    /// `None`: a collection that is over.
    by: Option<u8>,
    until: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Writer {
    at: Put,
    pending: bool,
    marked: bool,
    /// The writer has written the block into a pack.
    packed: bool,
    done: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Put {
    Idle,
    Write,
    /// Appends to a pack.
    Append,
    Commit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Collector {
    at: Collect,
    runs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Collect {
    Idle,
    Reap,
    Doom {
        dated: u8,
    },
    Delete {
        dated: u8,
        attempts: u8,
        /// Requests without an answer, as far as the collector knows.
        open: u8,
        gone: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    /// The collection that waits for the answer, if one does.
    by: Option<u8>,
    dated: u8,
    /// Carried out or refused; the answer is on its way.
    done: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct Objects {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
    /// Whether states that differ only in the numbers of writers and collectors count as one.
    symmetric: bool,
    broken: AtomicBool,
}

type Turns = Vec<Turn<State>>;

impl Objects {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>, symmetric: bool) -> Objects {
        Objects { bounds, mutant, symmetric, broken: AtomicBool::new(false) }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn holds(&self, holds: bool) -> bool {
        holds || self.broken.swap(true, Ordering::Relaxed)
    }

    /// Values that no longer make a difference become equal. Of equivalent states, this is the smallest.
    fn normal(&self, mut state: State) -> State {
        let late = |request: Request| state.now >= request.dated + VALID && !self.is(Mutant::GatewayLate);
        let over = |request: Request| request.by.is_none() && (request.done.is_some() || late(request));
        for request in &mut state.requests {
            *request = request.filter(|request| !over(*request));
        }
        state.requests.sort_unstable();
        let collectors = state.collectors;
        if let Some(doom) = state.row.as_mut().and_then(|row| row.doom.as_mut()) {
            doom.by = doom.by.filter(|by| collectors[usize::from(*by)].at != Collect::Idle);
        }
        if self.symmetric && self.bounds.puts[0] == self.bounds.puts[1] {
            state = state.min(state.swap_writers());
        }
        if self.symmetric && self.bounds.runs[0] == self.bounds.runs[1] {
            let alike = state.swap_collectors();
            let both = if self.bounds.puts[0] == self.bounds.puts[1] { alike.swap_writers() } else { alike };
            state = state.min(alike).min(both);
        }
        state
    }

    fn is_doomed(state: &State) -> bool {
        state.row.and_then(|row| row.doom).is_some_and(|doom| state.now < doom.until)
    }

    fn turns_of_writer(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut add = |what, next: State| turns.push(Turn::of("writer", number, what, self.normal(next)));
        let writer = state.writers[number];
        if writer.pending {
            let mut next = *state;
            next.writers[number].pending = false;
            next.expired += 1;
            add("loses its lease, and its blob expires", next);
        }
        match writer.at {
            Put::Idle if writer.done >= self.bounds.puts[number] => {}
            Put::Idle if Objects::is_doomed(state) && !self.is(Mutant::IgnoresDoom) => {
                add("meets a doom, and fails for want of packs", state.ended_put(number));
                let mut next = *state;
                let marked = state.row.is_some_and(|row| row.stored);
                let at = if marked { Put::Commit } else { Put::Append };
                next.writers[number] = Writer { at, pending: true, marked, ..writer };
                add("meets a doom, and pins the block", next);
            }
            Put::Idle => {
                let mut next = *state;
                let row = next.row.get_or_insert(Row::NEW);
                row.doom = None;
                let at = if row.stored { Put::Commit } else { Put::Write };
                let pending = !self.is(Mutant::NoReference);
                next.writers[number] = Writer { at, pending, marked: row.stored, ..writer };
                add("pins the block", next);
            }
            Put::Write => {
                let mut next = *state;
                next.object = true;
                next.writers[number].at = Put::Commit;
                add("writes the object", next);
            }
            Put::Append => {
                let mut next = *state;
                next.writers[number] = Writer { at: Put::Commit, packed: true, ..writer };
                add("writes the block into a pack", next);
            }
            Put::Commit => {
                let unchecked = self.is(Mutant::CommitUnchecked) || self.is(Mutant::NoReference);
                let Some(row) = state.row.filter(|_| writer.pending || unchecked) else {
                    add("is refused its commit", state.ended_put(number));
                    return;
                };
                let mut next = *state;
                if !writer.marked {
                    let packed = if row.stored { row.packed } else { writer.packed };
                    next.row = Some(Row { stored: true, packed, ..row });
                    next.writers[number].marked = true;
                    if !row.stored {
                        add("marks the block stored", next);
                    }
                }
                next.writers[number].pending = false;
                next.live += 1;
                add("commits", next.ended_put(number));
            }
        }
        if writer.at != Put::Idle {
            add("dies or gives up", state.ended_put(number));
        }
    }

    fn turns_of_collector(&self, state: &State, number: usize, turns: &mut Turns) {
        let collector = state.collectors[number];
        let to = |at: Collect| {
            let mut next = *state;
            next.collectors[number].at = at;
            next
        };
        let mut add = |what, next: State| turns.push(Turn::of("collector", number, what, self.normal(next)));
        match collector.at {
            Collect::Idle if collector.runs < self.bounds.runs[number] => {
                let mut next = to(Collect::Reap);
                next.collectors[number].runs += 1;
                add("starts", next);
            }
            Collect::Idle => {}
            Collect::Reap => {
                let mut marked = *state;
                if let Some(row) = &mut marked.row {
                    row.candidate = true;
                    if state.deleted > 0 {
                        add("reaps a deleted blob", State { deleted: state.deleted - 1, ..marked });
                    }
                    if state.expired > 0 {
                        add("reaps an expired blob", State { expired: state.expired - 1, ..marked });
                    }
                }
                add("takes the date of its deletes", to(Collect::Doom { dated: state.now }));
            }
            Collect::Doom { dated } => {
                add("finds nothing to doom", to(Collect::Idle));
                self.releases(state, number, turns);
                let mut add =
                    |what, next: State| turns.push(Turn::of("collector", number, what, self.normal(next)));
                let free = !Objects::is_doomed(state) || self.is(Mutant::StolenDoom);
                let Some(row) = state.row.filter(|row| row.candidate && !row.packed && free) else { return };
                if state.references() > 0 {
                    let row = Some(Row { candidate: false, ..row });
                    add("finds the block referenced", State { row, ..to(Collect::Idle) });
                    return;
                }
                let until = state.now + if self.is(Mutant::ShortDoom) { 1 } else { VALID };
                let doom = Some(Doom { by: Some(number as u8), until });
                let stored = row.stored && self.is(Mutant::StaysStored);
                let at = Collect::Delete { dated, attempts: 0, open: 0, gone: false };
                let row = Some(Row { stored, candidate: true, doom, ..row });
                add("dooms the block", State { row, ..to(at) });
            }
            Collect::Delete { .. } => self.deletes(state, number, turns),
        }
        if collector.at != Collect::Idle {
            let mut next = to(Collect::Idle).without_answers(number);
            if let Some(row) = next.row.as_mut().filter(|_| self.is(Mutant::LiftsTheDead)) {
                row.doom = row.doom.filter(|doom| doom.by != Some(number as u8));
            }
            turns.push(Turn::of("collector", number, "dies", self.normal(next)));
        }
    }

    /// Releases a record at once, because nothing writes there again.
    fn releases(&self, state: &State, number: usize, turns: &mut Turns) {
        let Some(row) = state.row.filter(|row| row.candidate && row.packed) else { return };
        let free = !Objects::is_doomed(state) || self.is(Mutant::ReleasesDoomed);
        if state.references() == 0 && free && row.doom.is_none_or(|doom| doom.by != Some(number as u8)) {
            let next = self.normal(State { row: None, ..*state });
            turns.push(Turn::of("collector", number, "releases the record", next));
        }
    }

    fn deletes(&self, state: &State, number: usize, turns: &mut Turns) {
        let mut add = |what, next: State| turns.push(Turn::of("collector", number, what, self.normal(next)));
        let me = Some(number as u8);
        let Collect::Delete { dated, attempts, open, gone } = state.collectors[number].at else { return };
        // The earlier protocol sent nothing after the doom's end, but ignored that a server may be late.
        let too_late = self.is(Mutant::ShortDoom) && !Objects::is_doomed(state);
        if attempts < 2 && !too_late {
            let mut next = *state;
            let anew = self.is(Mutant::DatesLate) || self.is(Mutant::RetryDatesAnew) && attempts > 0;
            let dated_so = if anew { state.now } else { dated };
            if let Some(place) = next.requests.iter_mut().find(|place| place.is_none()) {
                *place = Some(Request { by: me, dated: dated_so, done: None });
                let at = Collect::Delete { dated, attempts: attempts + 1, open: open + 1, gone };
                next.collectors[number].at = at;
                add("sends a delete", next);
            }
        }
        for place in 0..REQUESTS {
            let Some(Request { by, done: Some(done), .. }) = state.requests[place] else { continue };
            if by == me {
                let mut next = *state;
                next.requests[place] = None;
                let (open, gone) = (open - 1, gone || done);
                next.collectors[number].at = Collect::Delete { dated, attempts, open, gone };
                add(
                    if done { "hears that the object is gone" } else { "hears that nothing was deleted" },
                    next,
                );
            }
        }
        let mut next = state.without_answers(number);
        next.collectors[number].at = Collect::Idle;
        let known = open == 0 || self.is(Mutant::RetryIsEnough) && gone;
        if let Some(row) = next.row {
            let mine = row.doom.is_some_and(|doom| doom.by == me);
            let unused = state.references() == 0 && !row.packed || self.is(Mutant::SettlesInUse);
            let goes = mine && unused || self.is(Mutant::SettlesBlindly);
            if known && gone && goes {
                next.row = None;
            } else if mine && (known || self.is(Mutant::LiftsUnknown)) {
                next.row = Some(Row { doom: None, ..row });
            }
        }
        add("settles", next);
    }

    fn turns_of_server(&self, state: &State, turns: &mut Turns) {
        for place in 0..REQUESTS {
            let Some(request) = state.requests[place].filter(|request| request.done.is_none()) else {
                continue;
            };
            let answered = |done: bool| {
                let mut next = *state;
                next.requests[place] =
                    request.by.is_some().then_some(Request { done: Some(done), ..request });
                next
            };
            if state.now < request.dated + VALID || self.is(Mutant::GatewayLate) {
                let what = "the server carries out a delete";
                turns.push(Turn::of_all(what, self.normal(State { object: false, ..answered(true) })));
            }
            turns.push(Turn::of_all("the server refuses a delete", self.normal(answered(false))));
            if request.by.is_some() {
                let mut next = *state;
                next.requests[place] = Some(Request { by: None, ..request });
                turns.push(Turn::of_all("the connection of a delete breaks", self.normal(next)));
            }
        }
    }
}

impl State {
    fn references(&self) -> u8 {
        let pending = self.writers.iter().filter(|writer| writer.pending).count() as u8;
        self.live + self.deleted + self.expired + pending
    }

    fn ended_put(mut self, number: usize) -> State {
        let writer = &mut self.writers[number];
        self.expired += u8::from(writer.pending);
        *writer =
            Writer { at: Put::Idle, pending: false, marked: false, packed: false, done: writer.done + 1 };
        self
    }

    /// No process waits for the answers to this collection any more.
    fn without_answers(mut self, number: usize) -> State {
        for request in self.requests.iter_mut().flatten() {
            request.by = request.by.filter(|by| usize::from(*by) != number);
        }
        self
    }

    fn swap_writers(mut self) -> State {
        self.writers.swap(0, 1);
        self
    }

    fn swap_collectors(mut self) -> State {
        self.collectors.swap(0, 1);
        for by in self.requests.iter_mut().flatten().map(|request| &mut request.by) {
            *by = by.map(|by| 1 - by);
        }
        if let Some(doom) = self.row.as_mut().and_then(|row| row.doom.as_mut()) {
            doom.by = doom.by.map(|by| 1 - by);
        }
        self.requests.sort_unstable();
        self
    }
}

impl Model for Objects {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            row: Some(Row { stored: true, ..Row::NEW }),
            object: true,
            live: 1,
            deleted: 0,
            expired: 0,
            writers: [Writer { at: Put::Idle, pending: false, marked: false, packed: false, done: 0 };
                WRITERS],
            collectors: [Collector { at: Collect::Idle, runs: 0 }; COLLECTORS],
            requests: [None; REQUESTS],
        }]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        if state.now < self.bounds.end {
            turns.push(Turn::of_all("time passes", self.normal(State { now: state.now + 1, ..*state })));
        }
        if state.live > 0 {
            let next = State { live: state.live - 1, deleted: state.deleted + 1, ..*state };
            turns.push(Turn::of_all("a blob is deleted", self.normal(next)));
        }
        (0..WRITERS).for_each(|writer| self.turns_of_writer(state, writer, turns));
        (0..COLLECTORS).for_each(|collector| self.turns_of_collector(state, collector, turns));
        self.turns_of_server(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Objects>> {
        vec![
            Property::always(
                "a blob that is live or can be restored has its row and its bytes",
                |model: &Objects, state: &State| {
                    let kept = state.live + state.deleted > 0;
                    model.holds(!kept || state.row.is_some_and(|row| row.packed || state.object))
                },
            ),
            Property::always("a row that says stored has its bytes", |model: &Objects, state: &State| {
                model.holds(!state.row.is_some_and(|row| row.stored && !row.packed) || state.object)
            }),
            Property::always("no blob relies on a name that is doomed", |model: &Objects, state: &State| {
                let relies = state.live + state.deleted > 0 && state.row.is_some_and(|row| !row.packed);
                model.holds(!Objects::is_doomed(state) || !relies)
            }),
            Property::always(
                "without a delete that may yet happen, a settled doom is over",
                |model: &Objects, state: &State| model.holds(model.settles_known(state)),
            ),
        ]
    }
}

impl Objects {
    /// A collection that got answers to all its requests leaves no doom behind.
    fn settles_known(&self, state: &State) -> bool {
        (0..COLLECTORS).all(|number| {
            let Collect::Delete { open: 0, .. } = state.collectors[number].at else { return true };
            let mut turns = Turns::new();
            self.deletes(state, number, &mut turns);
            let Some(settled) = turns.last() else { return false };
            let by_me = |state: &State| {
                state.row.and_then(|row| row.doom).is_some_and(|doom| doom.by == Some(number as u8))
            };
            !by_me(state) || settled.to.row.and_then(|row| row.doom).is_none()
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { now, row, object, live, deleted, expired, .. } = self;
        write!(f, "        {now}: object {object}; {live} live, {deleted} deleted, {expired} expired")?;
        if let Some(row) = row {
            let doom = row.doom.map(|doom| (doom.by, doom.until));
            write!(f, "; stored {}, candidate {}, doom {doom:?}", row.stored, row.candidate)?;
        }
        let requests =
            self.requests.iter().flatten().map(|request| (request.by, request.dated, request.done));
        write!(f, "; requests {:?}", requests.collect::<Vec<_>>())
    }
}
