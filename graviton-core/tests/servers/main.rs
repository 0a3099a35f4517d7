//! Stores on PostgreSQL and S3: what needs the servers of `tests/servers`. Without them each test says LEFT
//! OUT.

mod closed_streams;
mod collect;
mod conformance;
mod ownership;
mod pairs;
mod poolers;
mod postgres_faults;
mod s3_faults;
mod s3_opening;
mod s3_packs;
mod s3_removal;
mod s3_repack;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod wrong_settings;
