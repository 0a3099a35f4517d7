//! Campaigns: tests that search, with a short leg here. `tests/run` has the table of their counts and of the
//! long ones.

mod bit_rot;
mod hammer;
mod kills;
mod model;
mod processes;
#[path = "../support/mod.rs"]
mod support;
