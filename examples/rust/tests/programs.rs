//! Runs each program, and checks what it prints.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a program in a directory of its own, with these arguments.
fn run(program: &str, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(directory).output().unwrap()
}

/// The output of a program that must succeed.
fn printed(program: &str, directory: &Path, arguments: &[&str]) -> String {
    let output = run(program, directory, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn id_of(bytes: &[u8]) -> String {
    graviton_core::BlobId::of(graviton_core::Algo::Blake3, bytes).to_string()
}

#[test]
fn hello_prints_the_readme() {
    let here = tempfile::tempdir().unwrap();
    let text = "# Graviton\nand more\n";
    std::fs::write(here.path().join("README.md"), text).unwrap();
    let id = id_of(text.as_bytes());
    let program = env!("CARGO_BIN_EXE_hello");
    assert_eq!(printed(program, here.path(), &[]), format!("{id}: 1 of 1 blocks are new\n{text}"));
    assert_eq!(printed(program, here.path(), &[]), format!("{id}: 0 of 1 blocks are new\n{text}"));
}

#[test]
fn put_get_copies_a_file() {
    let here = tempfile::tempdir().unwrap();
    let content = vec![7; 100_000];
    std::fs::write(here.path().join("file"), &content).unwrap();
    let program = env!("CARGO_BIN_EXE_put_get");
    let said = printed(program, here.path(), &["store", "file", "copy"]);
    assert!(said.starts_with(&id_of(&content)), "{said}");
    assert_eq!(std::fs::read(here.path().join("copy")).unwrap(), content);
    let failed = run(program, here.path(), &["store", "nothing", "copy"]);
    assert!(!failed.status.success() && !failed.stderr.is_empty());
}

#[test]
fn streaming_keeps_only_what_was_finished() {
    let here = tempfile::tempdir().unwrap();
    let said = printed(env!("CARGO_BIN_EXE_streaming"), here.path(), &["store"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("1088895 bytes in "), "{said}");
    assert_eq!(lines[1..], ["1 blob", "line 100000"]);
}

#[test]
fn ranges_reads_parts() {
    let here = tempfile::tempdir().unwrap();
    let said = printed(env!("CARGO_BIN_EXE_ranges"), here.path(), &["store"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("the first of "), "{said}");
    assert_eq!(lines[1..], ["at 4000: 1000", "at the end: 1999999", "the sum of four: 3000000"]);
}

#[test]
fn tour_calls_what_most_programs_need() {
    let here = tempfile::tempdir().unwrap();
    let said = printed(env!("CARGO_BIN_EXE_tour"), here.path(), &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[1].contains("cannot put"), "{said}");
    assert_eq!(lines.len(), 4, "{said}");
    assert!(said.contains(&format!("{} in 1 blocks", id_of(b"hello"))), "{said}");
}

#[test]
fn upkeep_frees_and_verifies() {
    let here = tempfile::tempdir().unwrap();
    let output = run(env!("CARGO_BIN_EXE_upkeep"), here.path(), &["store"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "freed 1 blobs, 1 blocks, 16 bytes\nverified 0 blobs; clean: true\n");
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("gc: 1 blocks") && progress.contains("verify: "), "{progress}");
}

#[test]
fn with_tokio_puts_several_files() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("a"), "one").unwrap();
    std::fs::write(here.path().join("b"), "two").unwrap();
    let said = printed(env!("CARGO_BIN_EXE_with_tokio"), here.path(), &["store", "a", "b"]);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    let mut expected = [b"one", b"two"].map(|bytes| format!("{} in 1 blocks", id_of(bytes)));
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn every_program_is_run_here() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = std::fs::read_to_string(here.join("tests/programs.rs")).unwrap();
    for program in std::fs::read_dir(here.join("src/bin")).unwrap() {
        let name = program.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(tests.contains(&format!("CARGO_BIN_EXE_{name}\"")), "{name}");
    }
}
