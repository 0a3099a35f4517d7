//! The position at which a verification continues.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::key::BlobId;
use crate::place::PackName;

/// Where a verification of the whole store goes on. Its text can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyCursor(pub(crate) Place);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Manifests(Option<BlobId>),
    /// The pack that is being looked through, and an offset in it; `None` for all packs.
    Packs(Option<(PackName, u64)>),
    Blocks(i64),
    Listing,
}

impl fmt::Display for VerifyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Manifests(None) => f.write_str("manifests"),
            Place::Manifests(Some(id)) => write!(f, "manifests/{id}"),
            Place::Packs(None) => f.write_str("packs"),
            Place::Packs(Some((name, offset))) => write!(f, "packs/{name}/{offset}"),
            Place::Blocks(row) => write!(f, "blocks/{row}"),
            Place::Listing => f.write_str("listing"),
        }
    }
}

impl FromStr for VerifyCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<VerifyCursor> {
        let place = match text.split_once('/') {
            None if text == "manifests" => Some(Place::Manifests(None)),
            None if text == "packs" => Some(Place::Packs(None)),
            None if text == "listing" => Some(Place::Listing),
            Some(("manifests", id)) => id.parse().ok().map(|id| Place::Manifests(Some(id))),
            Some(("packs", at)) => pack(at).map(|at| Place::Packs(Some(at))),
            Some(("blocks", row)) => row.parse().ok().map(Place::Blocks),
            _ => None,
        };
        let wrong = || Error::new(Code::InvalidArgument, format!("{text:?} is no place in a verification"));
        place
            .map(VerifyCursor)
            .ok_or_else(|| wrong().with_advice("use what an interrupted verification gave"))
    }
}

/// `<name>/<offset>`.
fn pack(text: &str) -> Option<(PackName, u64)> {
    let (name, offset) = text.split_once('/')?;
    Some((name.parse().ok()?, offset.parse().ok()?))
}
