//! Random numbers from the system, for ids that nobody else may have.

use crate::error::{Code, Error, Result};

/// Returns `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}
