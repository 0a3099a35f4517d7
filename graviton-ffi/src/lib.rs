//! libgraviton: the engine as a C library.
//!
//! What callers see is `include/graviton.h`, which cbindgen makes from the comments and signatures here
//! (`tests/header`), so the comments on exported items speak to C programmers. A file for each type of handle, over
//! - [`panic`]: every function runs in [`panic::guard`], which turns errors and panics into a status;
//! - [`pointer`]: every pointer is checked there before it is used, and [`versioned`]: every structure;
//! - [`session`]: what the handles of one open store share, and the checks for forks and closed stores; [`sticky`]: what an
//!   error sticks to;
//! - [`callback`]: calls back into the program, and cancellation.
//!
//! Nothing is kept in thread-local or global variables, but for tables of constant text.

#![deny(unsafe_op_in_unsafe_fn)]
// Types and functions have the names that C programs see.
#![allow(non_camel_case_types)]
// What callers must keep to is in the header, once for all functions.
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
