//! `graviton-server`: the blob store over HTTP, as a library, so that tests can start it.
//!
//! Arrows point from a file to the files that it uses; there is no circle.
//!
//! ```text
//! server                        accepts connections, shuts down       -> connection, tls, not_http
//!   service                     one request: ID, admission, metrics   -> auth, client, watched_body
//!     routes                    the table of routes, the OpenAPI document
//!       blobs, blocks           uploads, downloads, sessions          -> body, declared, outgoing
//!       admin                   garbage collection and verification   -> jobs
//!       health, metrics, docs
//!         schemas, extract      what routes share in OpenAPI and in requests
//!         app                   the state that all requests share     -> auth, jobs, memory, quota
//!           problem, settings   failures as clients see them, limits
//! ```
//! Everything runs on tokio over [`graviton_core::AsyncStore`]; no handler blocks. Several servers may share
//! one database and one block store: the state that a server keeps in memory (jobs, rate limits) concerns
//! only itself.

#![forbid(unsafe_code)]

mod admin;
mod app;
pub mod auth;
mod blobs;
mod blocks;
mod body;
mod client;
mod connection;
mod connection_slots;
mod declared;
mod docs;
mod extract;
mod health;
mod jobs;
pub mod logs;
mod memory;
mod metrics;
mod not_http;
mod outgoing;
mod problem;
mod quota;
mod readiness;
mod reports;
mod request_id;
mod routes;
mod schemas;
mod server;
mod service;
mod sessions;
pub mod settings;
pub mod timestamp;
mod tls;
mod upload_slots;
mod watched_body;

pub use problem::CODES;
pub use routes::openapi_json;
pub use server::{Control, Port, Server, check};
