//! The servers that `tests/servers` starts: what it says about them, and tests that are left out without
//! them.

use super::left_out::leave_out;

/// The value of a variable of `tests/servers`.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run this through tests/servers, as in `tests/servers cargo test -p graviton-core`")
    })
}

/// Whether the servers run. If not, says that `what` is left out.
pub(crate) fn are_there(what: &str) -> bool {
    let there = std::env::var_os("GRAVITON_TEST_POSTGRES").is_some();
    if !there {
        leave_out(what, "no servers run; start the tests through tests/servers");
    }
    there
}

/// Ends the test that it is the first statement of, if the servers do not run.
macro_rules! needs_servers {
    () => {
        if !$crate::support::servers::are_there(&format!(
            "{}, {}:{}",
            std::thread::current().name().unwrap_or("a test"),
            module_path!(),
            line!()
        )) {
            return;
        }
    };
}

pub(crate) use needs_servers;
