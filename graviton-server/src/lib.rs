//! `graviton-server`: the blob store over HTTP, as a library, so that tests can start it; and what it shares with the
//! command line `graviton`.
//!
//! ```text
//! server -> connection, tls            accepts, and looks after connections
//!   refusal                            what is no request at all
//!   front -> auth, problem             one request: its id, who asks, what is counted, how it fails
//!     app                              what requests share, and the table of routes
//!       blobs, blocks                  streams and blocks      -> body, outgoing, quota
//!       memory, places                 how much is held, and by how many
//!       health, metrics_page, admin    operations              -> jobs
//!       documented                     OpenAPI, made from the routes
//! ```
//! Everything runs on tokio over [`graviton_core::AsyncStore`]; no handler blocks. Any number of servers may share one
//! database and one block store: what a server has of its own (jobs, rates) only concerns itself.

#![forbid(unsafe_code)]

mod admin;
mod app;
pub mod auth;
mod blobs;
mod blocks;
mod body;
mod connection;
mod content;
mod documented;
mod extract;
mod front;
mod health;
mod jobs;
pub mod logs;
mod memory;
mod metrics_page;
mod outgoing;
mod places;
mod problem;

mod quota;

mod refusal;
mod server;
pub mod settings;
pub mod timestamp;
mod tls;

pub use documented::openapi_json;
pub use problem::CODES;
pub use server::{Control, Server, check};
