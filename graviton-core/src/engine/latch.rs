//! After a failed sync the content of the disk is unknown: the kernel may have dropped the pages and may not
//! report the error again. So the first such failure latches the store, and every later write is refused
//! until the store is opened again. A full disk or a lost connection does not latch it.

use std::sync::OnceLock;

use crate::error::{Code, Error, Result};

/// Closed at first; closes for ever on the first I/O error.
#[derive(Debug, Default)]
pub(super) struct Latch(OnceLock<Error>);

impl Latch {
    /// Fails if an earlier write did.
    pub(super) fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(error) => Err(Error::new(
                Code::Latched,
                format!("an earlier write failed ({error}), and this store takes no more"),
            )
            .with_advice("find out what is wrong with the disk, then open the store again")
            .with_source(error.clone())),
        }
    }

    /// Passes the result of a write on, and takes note of an I/O error.
    pub(super) fn watch<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.code() == Code::Io
        {
            let _ = self.0.set(error.clone());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_latches_and_a_full_disk_does_not() {
        let latch = Latch::default();
        let _ = latch.watch::<()>(Err(Error::new(Code::NoSpace, "full")));
        latch.check().unwrap();
        let _ = latch.watch::<()>(Err(Error::new(Code::Io, "cannot sync")));
        assert_eq!(latch.check().unwrap_err().code(), Code::Latched);
    }
}
