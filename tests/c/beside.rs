//! Another static library of Rust, which unwinds by itself: both have the same private parts of Rust's own.

/// Whether a panic was caught.
#[unsafe(no_mangle)]
pub extern "C" fn beside_catches() -> i32 {
    i32::from(std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7))).is_err())
}
