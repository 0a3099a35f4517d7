//! Code that the test programs of this crate share.

#![allow(dead_code, unused_imports, unused_macros, reason = "each program uses a part of it")]

pub(crate) mod child;
#[cfg(feature = "postgres")]
pub(crate) mod cluster;
#[cfg(all(feature = "s3", feature = "postgres"))]
pub(crate) mod exact;
#[path = "../../../tests/left_out.rs"]
pub(crate) mod left_out;
pub(crate) mod ownership;
#[cfg(all(feature = "s3", feature = "postgres"))]
pub(crate) mod pair;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod proxy;
#[cfg(feature = "s3")]
pub(crate) mod s3;
pub(crate) mod servers;

pub(crate) use servers::needs_servers;
