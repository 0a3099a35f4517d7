//! The store on files and SQLite: everything that needs no server and no great time.

mod at_once;
mod edges;
mod faults;
mod fixtures;
mod forgotten;
mod interrupted;
mod loss;
mod ownership;
mod pack_space;
mod pack_sums;
mod packs;
mod read_at;
mod rebuild;
mod removal;
mod repack;
mod runtimes;
#[path = "../support/mod.rs"]
mod support;
mod upkeep;
mod vectors;
