//! The shared library of a plain `cargo build` shows only the functions of `symbols.txt`. By itself Rust would also show the C
//! functions of dependencies (those of crc-fast), for another library of the same name to take their place.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What comes from archives, and a dependency is one, is not shown. A version script would do as well, but the compiler
    // passes one already, and linkers take no second one.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
