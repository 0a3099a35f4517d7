//! The versions: of the header when a program is compiled, and of the library when it runs.

use std::ffi::c_char;

/// The major version of this header.
pub const GRAVITON_VERSION_MAJOR: i32 = 0;

/// The minor version of this header.
pub const GRAVITON_VERSION_MINOR: i32 = 2;

/// The patch version of this header.
pub const GRAVITON_VERSION_PATCH: i32 = 0;

/// The version of this header as one number: major * 1000000 + minor * 1000 + patch. For `#if`.
pub const GRAVITON_VERSION_NUMBER: i32 = 2_000;

/// The version of the library that is running, as text, such as "0.2.0". It is valid for ever. Cannot fail,
/// never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the library that is running, composed like GRAVITON_VERSION_NUMBER. Cannot fail, never
/// blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_version_number() -> i32 {
    GRAVITON_VERSION_NUMBER
}

/// The best size of a buffer for graviton_writer_write and graviton_reader_read, in bytes. Larger ones gain
/// nothing; smaller ones down to a few KiB lose little. Cannot fail, never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_recommended_buffer_size() -> usize {
    // A block of the default chunker is 256 KiB on average, and a read returns at most the rest of its block.
    256 << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let number = |text: &str| text.parse::<i32>().unwrap();
        let parts = [
            number(env!("CARGO_PKG_VERSION_MAJOR")),
            number(env!("CARGO_PKG_VERSION_MINOR")),
            number(env!("CARGO_PKG_VERSION_PATCH")),
        ];
        assert_eq!([GRAVITON_VERSION_MAJOR, GRAVITON_VERSION_MINOR, GRAVITON_VERSION_PATCH], parts);
        assert_eq!(graviton_version_number(), parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]);
    }
}
