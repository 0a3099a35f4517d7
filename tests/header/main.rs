//! `graviton-ffi/src/reports.rs` is made from the core's declaration of reports, and `include/graviton.h` by
//! cbindgen from the source. The header documents everything, has the core's codes, and names exactly the
//! functions of `symbols.txt`.
//!
//! After a change: `GRAVITON_UPDATE=1 cargo test -p graviton-header`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use graviton_core::Code;

mod reports;

/// The order of the files in the header: what is used comes first.
const FILES: &[&str] = &[
    "version", "status", "error", "callback", "blob_id", "reports", "config", "store", "put", "get",
    "writer", "reader", "list", "manifest", "block", "gc", "repack", "verify", "copy",
];

/// The directory of `graviton-ffi`.
fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../graviton-ffi")
}

/// The committed `src/reports.rs`, the one that the declaration gives, and the macros for it. The file is
/// renewed before the header is made of it.
static REPORTS: LazyLock<(String, String, String)> = LazyLock::new(|| {
    let path = library().join("src/reports.rs");
    let (rust, macros) = reports::made(&std::fs::read_to_string(&path).unwrap());
    (committed(&path, &rust), rust, macros)
});

fn made() -> String {
    let mut config = cbindgen::Config::from_file(library().join("cbindgen.toml")).unwrap();
    // The guard ends in the trailer, behind the macros that cbindgen cannot make.
    let header = config.header.take().unwrap();
    let end = "#endif  /* GRAVITON_H */";
    config.trailer = config.trailer.map(|text| text.replace(end, &format!("{}{end}", REPORTS.2)));
    config.header = Some(format!("{}\n\n#ifndef GRAVITON_H\n#define GRAVITON_H", header.trim()));
    let files = FILES.iter().map(|file| library().join(format!("src/{file}.rs")));
    let builder = files.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut text = Vec::new();
    builder.generate().expect("cbindgen").write(&mut text);
    // Only ASCII, for compilers that guess the encoding.
    let text = String::from_utf8(text).unwrap().replace('…', "...");
    assert!(text.is_ascii(), "{:?}", text.chars().find(|letter| !letter.is_ascii()));
    text
}

/// The text of a committed file, after renewing it if that is requested.
fn committed(path: &PathBuf, made: &str) -> String {
    if std::env::var_os("GRAVITON_UPDATE").is_some() {
        std::fs::write(path, made).unwrap();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The functions that the source exports, by its own words.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(library().join("src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let behind = text.split("#[unsafe(no_mangle)]").skip(1);
        names.extend(behind.map(|text| {
            let name = text.split("extern \"C\" fn ").nth(1).unwrap();
            name[..name.find('(').unwrap()].to_owned()
        }));
    }
    names
}

#[test]
fn the_reports_are_those_that_the_core_declares() {
    let (committed, made, _) = &*REPORTS;
    assert!(committed == made, "src/reports.rs is old; make it anew with GRAVITON_UPDATE=1");
}

#[test]
fn the_header_is_the_one_that_the_source_gives() {
    let made = made();
    let committed = committed(&library().join("../include/graviton.h"), &made);
    assert!(committed == made, "include/graviton.h is old; make it anew with GRAVITON_UPDATE=1");
}

#[test]
fn symbols_txt_lists_the_functions_and_the_header_declares_them() {
    let names = exported();
    let made: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
    assert_eq!(committed(&library().join("symbols.txt"), &made), made, "make it anew with GRAVITON_UPDATE=1");
    let header = self::made();
    for name in &names {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header: is its file in FILES?");
    }
}

/// Every line that declares something has the end of a comment right above it.
#[test]
fn everything_in_the_header_is_documented() {
    let header = made();
    let lines: Vec<&str> = header.lines().skip_while(|line| *line != "#define GRAVITON_H").skip(1).collect();
    let mut checked = 0;
    for (index, line) in lines.iter().enumerate() {
        let comment = ["/*", "*", "}", "#if", "#endif", "#include", "extern"];
        let text = line.trim_start();
        let declares = match line {
            _ if text.is_empty() || comment.iter().any(|start| text.starts_with(start)) => false,
            // A field, or a parameter of a function or a callback.
            line if line.starts_with(' ') => text.ends_with(';') && !inside_parameters(&lines, index),
            _ => true,
        };
        if declares {
            checked += 1;
            assert!(lines[index - 1].trim_end().ends_with("*/"), "line {}: {line}", index + 1);
        }
    }
    assert!(checked > 250, "only {checked} declarations: this test has lost them");
}

/// Whether the line continues the parameters of a function.
fn inside_parameters(lines: &[&str], index: usize) -> bool {
    lines[..index].iter().rev().find(|line| !line.starts_with(' ')).is_some_and(|line| line.contains('('))
}

#[test]
fn the_version_of_the_header_is_that_of_the_package() {
    assert!(made().contains(concat!("#define GRAVITON_VERSION \"", env!("CARGO_PKG_VERSION"), "\"\n")));
}

#[test]
fn the_codes_of_the_header_are_those_of_the_core() {
    let header = made();
    let defined: BTreeSet<String> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define GRAVITON_ERROR_"))
        .map(str::to_owned)
        .collect();
    let expected: BTreeSet<String> = Code::all()
        .map(|code| format!("{} {}", code.name().replace('-', "_").to_uppercase(), code.integer()))
        .collect();
    assert_eq!(defined, expected);
}
