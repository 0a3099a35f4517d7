//! The shared library of a plain `cargo build` exports only the functions of `symbols.txt`. By default Rust
//! would also export the C functions of dependencies (those of crc-fast), and another library's functions of
//! the same names could take their place.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Symbols from archives are not exported, and every dependency is an archive. A version script would work
    // as well, but the compiler already passes one, and linkers accept no second one.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
