//! libgraviton: the engine as a C library.
//!
//! Callers see `include/graviton.h`, which cbindgen generates from the comments and signatures here
//! (`tests/header`), so the comments on exported items address C programmers. Each type of handle has a file.
//! They use:
//! - [`panic`]: every function runs in [`panic::guard`], which turns errors and panics into a status;
//! - [`pointer`], which checks every pointer before it is used, and [`versioned`], which checks every
//!   structure;
//! - [`session`]: the state that the handles of one open store share, and the checks for forks and closed
//!   stores;
//! - [`sticky`]: handles that keep an error;
//! - [`callback`]: callbacks into the program, and cancellation.
//!
//! There is no thread-local or global state except tables of constant text.

#![deny(unsafe_op_in_unsafe_fn)]
// Types and functions have the names that C programs see.
#![allow(non_camel_case_types)]
// The header states the duties of callers, once for all functions.
#![allow(clippy::missing_safety_doc)]

mod blob_id;
mod block;
mod callback;
mod config;
mod copy;
mod descriptor;
mod error;
mod gc;
mod get;
mod guard;
mod list;
mod listener;
mod manifest;
mod panic;
mod pointer;
mod put;
mod reader;
mod repack;
mod reports;
mod session;
mod status;
mod sticky;
mod store;
mod verify;
mod version;
mod versioned;
mod writer;

pub use blob_id::*;
pub use block::*;
pub use callback::{
    GRAVITON_SIZE_UNKNOWN, GRAVITON_STOP, graviton_cancel_callback, graviton_progress_callback,
    graviton_read_callback,
};
pub use config::*;
pub use copy::*;
pub use error::*;
pub use gc::*;
pub use get::*;
pub use list::*;
pub use manifest::*;
pub use put::*;
pub use reader::*;
pub use repack::*;
pub use reports::*;
pub use status::*;
pub use store::*;
pub use verify::*;
pub use version::*;
pub use writer::*;
