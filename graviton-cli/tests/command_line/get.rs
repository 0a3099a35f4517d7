//! `get`: whole blobs and ranges, to standard output, files, links, devices and pipes.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use crate::scene::{Scene, damage, finish, make_pipe, noise};

#[test]
fn ranges_are_those_of_http() {
    let scene = Scene::new();
    let content = noise(1, 3_000_000);
    let id = scene.put(&content);
    for (range, expected) in [
        ("0-0", 0..1),
        ("0-", 0..3_000_000),
        ("5-14", 5..15),
        ("1000000-1999999", 1_000_000..2_000_000),
        ("2999999-", 2_999_999..3_000_000),
        ("2999999-9999999", 2_999_999..3_000_000),
        ("-1", 2_999_999..3_000_000),
        ("-1500000", 1_500_000..3_000_000),
        ("-99999999999999999999", 0..3_000_000),
    ] {
        let outcome = scene.run(&["get", &id, "--range", range]).succeeded();
        assert!(outcome.stdout == content[expected], "{range}");
    }
    for range in ["3000000-", "3000000-3000000", "99999999999999999999-", "-0"] {
        let outcome = scene.run(&["get", &id, "--range", range, "-o", "out"]);
        outcome.failed(1, "range-not-satisfiable", &id);
        assert!(outcome.stderr.contains("3000000 bytes") && scene.names().is_empty());
    }
    for range in ["", "-", "1", "2-1", "a-b", "1-2-3", "+1-2"] {
        assert_eq!(scene.run(&["get", &id, "--range", range]).code, 2, "{range}");
    }
}

#[test]
fn a_file_has_the_permissions_of_any_new_file() {
    let scene = Scene::new();
    let content = noise(2, 2_000_000);
    let id = scene.put(&content);
    for (umask, mode) in [("022", 0o644), ("077", 0o600), ("000", 0o666)] {
        let script = format!("umask {umask}; exec \"$0\" get {id} -o new");
        let shell = &mut scene.through("sh", &["-c", &script, env!("CARGO_BIN_EXE_graviton")]);
        assert!(shell.status().unwrap().success());
        let permissions = scene.path("new").metadata().unwrap().permissions();
        assert_eq!(permissions.mode() & 0o7777, mode);
        assert!(std::fs::read(scene.path("new")).unwrap() == content);
        assert_eq!(scene.names(), ["new"]);
        std::fs::remove_file(scene.path("new")).unwrap();
    }
}

#[test]
fn a_file_that_is_there_is_replaced_and_keeps_its_permissions() {
    let scene = Scene::new();
    let id = scene.put(b"new");
    scene.file("old", b"old content");
    std::fs::set_permissions(scene.path("old"), PermissionsExt::from_mode(0o640)).unwrap();
    let mut before = File::open(scene.path("old")).unwrap();
    scene.run(&["get", &id, "--output", "old"]).succeeded();
    assert_eq!(std::fs::read(scene.path("old")).unwrap(), b"new");
    assert_eq!(scene.path("old").metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(scene.names(), ["old"]);
    // A process with the old file open still reads the old content: the file was replaced, not overwritten.
    let mut old = String::new();
    before.read_to_string(&mut old).unwrap();
    assert_eq!(old, "old content");
}

#[test]
fn behind_a_symbolic_link_the_target_is_replaced() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    std::fs::create_dir(scene.path("inner")).unwrap();
    scene.file("inner/target", b"old");
    symlink("inner/target", scene.path("link")).unwrap();
    symlink("link", scene.path("inner/../link to link")).unwrap();
    symlink("inner/new", scene.path("dangling")).unwrap();
    symlink("loop", scene.path("loop")).unwrap();
    scene.run(&["get", &id, "-o", "link to link"]).succeeded();
    scene.run(&["get", &id, "-o", "dangling"]).succeeded();
    for (link, target) in
        [("link", "inner/target"), ("link to link", "inner/target"), ("dangling", "inner/new")]
    {
        assert!(scene.path(link).is_symlink());
        assert_eq!(std::fs::read(scene.path(target)).unwrap(), b"content");
    }
    let outcome = scene.run(&["get", &id, "-o", "loop"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
}

#[test]
fn pipes_are_written_straight() {
    let scene = Scene::new();
    let content = noise(3, 300_000);
    let id = scene.put(&content);
    // Not through /dev/stdout: a faulty program that runs as root would replace it.
    assert!(scene.run(&["get", &id, "-o", "/proc/self/fd/1"]).succeeded().stdout == content);
    assert!(scene.run(&["get", &id, "-o", "-"]).succeeded().stdout == content);
    make_pipe(&scene.path("pipe"));
    let child = scene.start(&["get", &id, "-o", "pipe"]);
    let mut read = Vec::new();
    File::open(scene.path("pipe")).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content);
    finish(child).succeeded();
    assert_eq!(scene.names(), ["pipe"]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let scene = Scene::new();
    let id = scene.put(&noise(4, 3_000_000));
    let mut child = scene.start(&["get", &id]);
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    finish(child).succeeded();
}

#[test]
fn a_full_standard_output_is_an_error() {
    let scene = Scene::new();
    let id = scene.put(b"x");
    let mut command = scene.command(&["get", &id]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    finish(command.spawn().unwrap()).failed(1, "no-space", "standard output");
}

#[test]
fn places_that_cannot_be_written_are_errors() {
    let scene = Scene::new();
    let id = scene.put(b"x");
    std::fs::create_dir(scene.path("directory")).unwrap();
    scene.file("file", b"");
    scene.run(&["get", &id, "-o", "directory"]).failed(1, "invalid-argument", "it is a directory");
    scene.run(&["get", &id, "-o", "no/file"]).failed(1, "not-found", "cannot write no/file");
    scene.run(&["get", &id, "-o", "file/x"]).failed(1, "invalid-argument", "cannot write file/x");
    assert_eq!(scene.run(&["get", &id, "-o", ""]).code, 2);
}

#[test]
fn damaged_data_is_never_written_as_if_it_were_whole() {
    let scene = Scene::new();
    let content = noise(5, 3_000_000);
    let id = scene.put(&content);
    scene.file("out", b"before");
    let block = scene.block(&id, 3);
    let offset = scene.run(&["manifest", "--json", &id]).json()[3]["offset"].as_u64().unwrap() as usize;
    let original = std::fs::read(&block).unwrap();
    let check = |code: &str| {
        let outcome = scene.run(&["get", &id]);
        outcome.failed(4, code, &id);
        assert!(outcome.stdout == content[..offset]);
        scene.run(&["get", &id, "-o", "out"]).failed(4, code, &id);
        assert_eq!(std::fs::read(scene.path("out")).unwrap(), b"before");
        scene.run(&["get", &id, "-o", "new"]).failed(4, code, &id);
        assert_eq!(scene.names(), ["out"]);
        // A range without the damaged block can still be read.
        let before = format!("0-{}", offset - 1);
        assert!(scene.run(&["get", &id, "--range", &before]).succeeded().stdout == content[..offset]);
    };
    damage(&block);
    check("corrupt-block");
    std::fs::write(&block, &original[1..]).unwrap();
    check("corrupt-block");
    std::fs::remove_file(&block).unwrap();
    check("missing-block");
    // Putting the same content again repairs it.
    assert_eq!(scene.put(&content), id);
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
}
