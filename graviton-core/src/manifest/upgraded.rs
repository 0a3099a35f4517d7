//! Handles an open database that another process upgrades: from then on the table of blocks has another name.

use crate::error::{Code, Error};

/// Whether a statement failed for the reason that the table of blocks has another name by now.
pub(super) fn is_upgraded(message: &str) -> bool {
    message.contains("no such table: block") || message.contains("relation \"block\" does not exist")
}

/// The error for a database that was upgraded while it was open.
pub(super) fn upgraded(name: &str) -> Error {
    Error::new(Code::Version, format!("the database {name} was upgraded while the store was open"))
        .with_advice("open the store again")
}
