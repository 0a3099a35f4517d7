//! Another static library of Rust, which unwinds by itself. Both libraries contain the same private parts of
//! Rust's standard library.

/// Whether a panic was caught.
#[unsafe(no_mangle)]
pub extern "C" fn beside_catches() -> i32 {
    i32::from(std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7))).is_err())
}
