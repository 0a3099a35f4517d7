//! Tests with needs that not every machine meets: servers, root, a program.
//!
//! Such a test prints LEFT OUT with the reason, and passes. `tests/run` sets `GRAVITON_TEST_EVERYTHING`,
//! which forbids that: the test then fails.

use std::io::Write;

/// Prints that the calling test leaves something out because of `reason`. Panics if nothing may be left out.
pub(crate) fn leave_out(what: &str, reason: &str) {
    assert!(
        std::env::var_os("GRAVITON_TEST_EVERYTHING").is_none(),
        "{what} must not be left out, and {reason}"
    );
    // Not `eprintln!`, which the test harness hides.
    let _ = std::io::stderr().write_all(format!("LEFT OUT: {what}: {reason}\n").as_bytes());
}
