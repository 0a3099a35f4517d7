//! A pack as an object: one name, the block in it, and requests that the server carries out late.
//!
//! Time goes in steps of 15 minutes. A PUT is dated when it is sent; the server refuses it 30 minutes later,
//! because its clock and the client's may be 15 minutes apart. Until then it may carry it out at any moment,
//! even if another attempt was answered. A DELETE may be late as well, which is harmless, because no other
//! pack gets the name.
//!
//! # The rules
//! 1. *Row*: the pack has a row, `writing`, before its first request.
//! 2. *Bytes*: they are fixed before the first request. Every attempt sends the same.
//! 3. *Lease*: the maker checks its lease before each attempt.
//! 4. *Mark*: after an attempt that was answered, and only while the row says `writing`.
//! 5. *Doubt*: a maker that seals its pack notes whether an attempt was not answered. Every found pack has
//!    this note, because its maker may have sent it just before. The doubt ends after 30 minutes.
//! 6. *Drop*: a sealed pack that no row points at, and whose doubt is over.
//! 7. *Delete*, then *forget*: the row goes last.
//!
//! # Assumptions
//! A maker does not stall between its check of the lease and the request for longer than the lease lasts.
//! Otherwise an object may come back without a row: `verify` lists it, and nothing is lost.

use std::fmt;

use stateright::{Model, Property};

use crate::mutants::mutants;
use crate::turn::Turn;

const REQUESTS: usize = 3;
/// How long after its date the server may carry out a PUT.
const VALID: u8 = 2;

#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    attempts: u8,
    /// The last moment.
    end: u8,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a pack that is sent by up to {} attempts, within {} quarters of an hour",
            self.attempts, self.end
        )
    }
}

pub(crate) const SHORT_LEG: &[Bounds] = &[Bounds { name: "sent", attempts: 3, end: 6 }];

pub(crate) const LONG_LEG: &[Bounds] = &[];

mutants! {
    OtherBytes "sent" "a second attempt sends other bytes under the name",
    MarksUnanswered "sent" "a block is marked before an attempt was answered",
    MarksUnchecked "sent" "a mark does not look whether the pack is still being written",
    SendsWithoutLease "sent" "the maker does not look at its lease before it sends",
    SealsWithoutDoubt "sent" "a maker forgets that an attempt was not answered",
    FoundWithoutDoubt "sent" "a pack that was found is taken for one that nobody sends",
    DropsInDoubt "sent" "a pack is dropped while an attempt may be carried out",
    DropsUsed "sent" "a pack is dropped without a look whether a row points at it",
    ForgetsFirst "sent" "the row goes before the object",
    RowLater "sent" "the row is inserted when the pack was sent",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    None,
    Writing,
    Found,
    Sealed {
        in_doubt_until: u8,
    },
    Dropped {
        deleted: bool,
    },
    /// The row existed, and is gone.
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    /// No row points at the pack yet.
    Unmarked,
    /// A row points at the pack, and expects these bytes.
    Marked(u8),
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request {
    dated: u8,
    bytes: u8,
    /// The maker waits for the answer.
    awaited: bool,
    /// Carried out, and the answer is on its way.
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    leased: bool,
    row: Row,
    block: Block,
    /// The bytes that are there.
    object: Option<u8>,
    alive: bool,
    attempts: u8,
    /// The bytes of an attempt that was answered.
    answered: Option<u8>,
    in_doubt: bool,
    requests: [Option<Request>; REQUESTS],
}

#[derive(Debug)]
pub(crate) struct Sent {
    bounds: &'static Bounds,
    mutant: Option<Mutant>,
}

type Turns = Vec<Turn<State>>;

impl Sent {
    pub(crate) fn new(bounds: &'static Bounds, mutant: Option<Mutant>) -> Sent {
        Sent { bounds, mutant }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn turns_of_maker(&self, state: &State, turns: &mut Turns) {
        if !state.alive {
            return;
        }
        let mut add = |what, next: State| turns.push(Turn::of("maker", 0, what, next));
        add("dies", state.abandoned());
        if state.row == Row::None && (!self.is(Mutant::RowLater) || state.answered.is_some()) {
            add("inserts the row", State { row: Row::Writing, ..*state });
        }
        let may_send = state.row != Row::None || self.is(Mutant::RowLater);
        let leased = state.leased || self.is(Mutant::SendsWithoutLease);
        let waits = state.requests.iter().flatten().any(|request| request.awaited);
        if may_send && leased && !waits && state.answered.is_none() && state.attempts < self.bounds.attempts {
            let mut next = *state;
            if let Some(place) = next.requests.iter_mut().find(|place| place.is_none()) {
                let bytes = if self.is(Mutant::OtherBytes) { state.attempts } else { 0 };
                *place = Some(Request { dated: state.now, bytes, awaited: true, done: false });
                next.attempts += 1;
                add("sends the pack", next);
            }
        }
        for place in 0..REQUESTS {
            let Some(request) = state.requests[place].filter(|request| request.awaited) else { continue };
            let mut next = *state;
            if request.done {
                next.requests[place] = None;
                next.answered = Some(request.bytes);
                add("hears that the pack is there", next);
            } else {
                next.requests[place] = Some(Request { awaited: false, ..request });
                next.in_doubt = true;
                add("gives up an attempt", next);
            }
        }
        let bytes = if self.is(Mutant::MarksUnanswered) { Some(0) } else { state.answered };
        let writing = state.row == Row::Writing || self.is(Mutant::MarksUnchecked);
        if let Some(bytes) =
            bytes.filter(|_| writing && state.block == Block::Unmarked && state.row != Row::None)
        {
            add("marks the block", State { block: Block::Marked(bytes), ..*state });
        }
        if state.row == Row::Writing && state.answered.is_some() {
            let doubt = state.in_doubt && !self.is(Mutant::SealsWithoutDoubt);
            let in_doubt_until = if doubt { state.now + VALID } else { state.now };
            add("seals the pack", State { row: Row::Sealed { in_doubt_until }, ..state.abandoned() });
        }
    }

    fn turns_of_collector(&self, state: &State, turns: &mut Turns) {
        let mut add = |what, row: Row| turns.push(Turn::of("collector", 0, what, State { row, ..*state }));
        match state.row {
            Row::Writing if !state.leased => add("finds the pack", Row::Found),
            Row::Found => {
                let doubt = if self.is(Mutant::FoundWithoutDoubt) { 0 } else { VALID };
                add("seals what it found", Row::Sealed { in_doubt_until: state.now + doubt });
            }
            Row::Sealed { in_doubt_until } => {
                let used = matches!(state.block, Block::Marked(_)) && !self.is(Mutant::DropsUsed);
                let doubtful = state.now < in_doubt_until && !self.is(Mutant::DropsInDoubt);
                if !used && !doubtful {
                    add("drops the pack", Row::Dropped { deleted: false });
                }
            }
            Row::Dropped { deleted } => {
                let next = State { row: Row::Dropped { deleted: true }, object: None, ..*state };
                turns.push(Turn::of("collector", 0, "deletes the object", next));
                if deleted || self.is(Mutant::ForgetsFirst) {
                    let next = State { row: Row::Forgotten, ..*state };
                    turns.push(Turn::of("collector", 0, "forgets the row", next));
                }
            }
            Row::None | Row::Writing | Row::Forgotten => {}
        }
    }

    fn turns_of_server(state: &State, turns: &mut Turns) {
        for place in 0..REQUESTS {
            let Some(request) = state.requests[place].filter(|request| !request.done) else { continue };
            if state.now >= request.dated + VALID {
                continue;
            }
            let mut next = *state;
            next.object = Some(request.bytes);
            next.requests[place] = request.awaited.then_some(Request { done: true, ..request });
            turns.push(Turn::of_all("the server carries out a PUT", next));
        }
    }
}

impl State {
    /// The state without its maker.
    fn abandoned(mut self) -> State {
        self.alive = false;
        self.leased = self.leased && self.row != Row::Writing;
        for request in self.requests.iter_mut().flatten() {
            request.awaited = false;
        }
        self.requests = self.requests.map(|request| request.filter(|request| !request.done));
        self
    }

    /// Requests that are too old are refused.
    fn later(mut self) -> State {
        self.now += 1;
        let now = self.now;
        self.requests = self.requests.map(|request| {
            request.filter(|request| request.awaited || request.done || now < request.dated + VALID)
        });
        self
    }
}

impl Model for Sent {
    type State = State;
    type Action = Turn<State>;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            leased: true,
            row: Row::None,
            block: Block::Unmarked,
            object: None,
            alive: true,
            attempts: 0,
            answered: None,
            in_doubt: false,
            requests: [None; REQUESTS],
        }]
    }

    fn actions(&self, state: &State, turns: &mut Turns) {
        if state.now < self.bounds.end {
            turns.push(Turn::of_all("time passes", state.later()));
        }
        if state.leased {
            turns.push(Turn::of_all("the lease runs out", State { leased: false, ..*state }));
        }
        if let Block::Marked(_) = state.block {
            turns.push(Turn::of_all("the block is released", State { block: Block::Released, ..*state }));
        }
        self.turns_of_maker(state, turns);
        self.turns_of_collector(state, turns);
        Sent::turns_of_server(state, turns);
    }

    fn next_state(&self, _: &State, turn: Turn<State>) -> Option<State> {
        Some(turn.to)
    }

    fn properties(&self) -> Vec<Property<Sent>> {
        vec![
            Property::always(
                "a block that is marked has its bytes",
                |_: &Sent, state: &State| !matches!(state.block, Block::Marked(bytes) if state.object != Some(bytes)),
            ),
            Property::always("an object has a row", |_: &Sent, state: &State| {
                state.object.is_none() || !matches!(state.row, Row::None | Row::Forgotten)
            }),
        ]
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { now, leased, row, block, object, requests, .. } = self;
        write!(f, "        {now}: row {row:?}, block {block:?}, object {object:?}, leased {leased}")?;
        let requests =
            requests.iter().flatten().map(|request| (request.dated, request.bytes, request.awaited));
        write!(f, "; requests {:?}", requests.collect::<Vec<_>>())
    }
}
