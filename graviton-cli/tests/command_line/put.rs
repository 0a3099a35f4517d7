//! `put`: ids in order, receipts, standard input, many files, and unusable ones among them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::Duration;

use graviton_core::{Algo, BlobId};

use crate::scene::{Outcome, Scene, finish, make_pipe, noise};

fn id_of(content: &[u8]) -> String {
    BlobId::of(Algo::Blake3, content).to_string()
}

#[test]
fn a_file_gives_its_id_and_comes_back() {
    let scene = Scene::new();
    let content = noise(1, 5_000_000);
    scene.file("file", &content);
    let outcome = scene.run(&["put", "file"]).succeeded();
    assert_eq!(outcome.text(), format!("{}\n", id_of(&content)));
    assert!(scene.run(&["get", &id_of(&content)]).succeeded().stdout == content);
}

#[test]
fn the_default_store_is_in_the_working_directory_and_other_places_can_be_named() {
    let scene = Scene::new();
    scene.file("file", b"x");
    scene.run(&["put", "file"]).succeeded();
    assert!(scene.path(".graviton/manifests.db").exists());
    scene.run(&["--root", "a", "put", "file"]).succeeded();
    scene.run(&["put", "file", "--root", "b"]).succeeded();
    scene.run(&["put", "--set", "GRAVITON_FS_ROOT=c", "file"]).succeeded();
    let command = &mut scene.command(&["put", "file"]);
    assert!(command.env("GRAVITON_FS_ROOT", "d").stdout(Stdio::null()).status().unwrap().success());
    let command = &mut scene.command(&["--root", "e", "put", "file"]);
    assert!(command.env("GRAVITON_FS_ROOT", "f").stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(scene.names(), ["a", "b", "c", "d", "e", "file"]);
}

#[test]
fn settings_before_and_after_the_command_all_count() {
    let scene = Scene::new();
    scene.file("file", &noise(1, 1000));
    let line = "--set GRAVITON_HASH=sha256 put --set GRAVITON_CHUNKER=fixed:100 file --json";
    let receipt = &scene.run(&line.split(' ').collect::<Vec<_>>()).succeeded().json()[0];
    assert!(receipt["id"].as_str().unwrap().starts_with("sha256:"), "{receipt}");
    assert_eq!(receipt["blocks"], 10);
}

#[test]
fn lines_come_in_the_order_given_and_bad_files_only_get_errors() {
    let scene = Scene::new();
    let large = [noise(1, 9_000_000), noise(2, 3_000_000)];
    scene.file("large", &large[0]);
    scene.file("large too", &large[1]);
    scene.file("small", b"small");
    scene.file("empty", b"");
    std::fs::create_dir(scene.path("directory")).unwrap();
    let arguments =
        ["put", "large", "missing", "small", "directory", "large too", "/proc/self/mem", "empty", "small"];
    let outcome = scene.run(&arguments);
    let expected = [&large[0][..], b"small", &large[1], b"", b"small"].map(id_of);
    assert_eq!(outcome.lines(), expected);
    assert_eq!(outcome.code, 1);
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| !line.starts_with("  help: ")).collect();
    assert_eq!(errors.len(), 3, "{}", outcome.stderr);
    assert_eq!(errors[0], "error[not-found]: cannot read missing: no such file or directory");
    assert_eq!(errors[1], "error[invalid-argument]: cannot put directory: it is a directory");
    assert_eq!(errors[2], "error[io]: cannot read /proc/self/mem: input/output error");
    for content in [&large[0][..], &large[1], b"small", b""] {
        assert!(scene.run(&["get", &id_of(content)]).succeeded().stdout == content);
    }
    scene.assert_blobs(4);
}

#[test]
fn more_files_than_are_in_flight_at_once() {
    let scene = Scene::new();
    let names: Vec<String> = (0..1100).map(|number| format!("file {number}")).collect();
    for (number, name) in names.iter().enumerate() {
        scene.file(name, &noise(number as u64, number % 300));
    }
    let arguments: Vec<&str> = ["put"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let outcome = scene.run(&arguments).succeeded();
    let expected: Vec<String> = (0..1100).map(|number| id_of(&noise(number as u64, number % 300))).collect();
    assert!(outcome.lines() == expected);
}

#[test]
fn standard_input_is_one_of_the_paths() {
    let scene = Scene::new();
    scene.file("file", b"file");
    let content = noise(3, 3_000_000);
    let outcome = scene.feed(&["put", "file", "-"], &content).succeeded();
    assert_eq!(outcome.lines(), [id_of(b"file"), id_of(&content)]);
    assert_eq!(scene.feed(&["put", "-"], b"").succeeded().lines(), [id_of(b"")]);
    assert!(scene.run(&["get", &id_of(b"")]).succeeded().stdout.is_empty());
    assert_eq!(scene.feed(&["put", "-", "-"], b"").code, 2);
}

#[test]
fn a_named_pipe_is_read_to_its_end() {
    let scene = Scene::new();
    make_pipe(&scene.path("pipe"));
    let child = scene.start(&["put", "pipe"]);
    let content = noise(4, 300_000);
    File::create(scene.path("pipe")).unwrap().write_all(&content).unwrap();
    assert_eq!(finish(child).succeeded().lines(), [id_of(&content)]);
}

/// A program that writes to several pipes waits until each of them is opened and read.
#[test]
fn one_program_may_feed_several_pipes() {
    let scene = Scene::new();
    let content = noise(5, 3_000_000);
    scene.file("source", &content);
    let pipes = ["p1", "p2", "p3", "p4", "p5"];
    for pipe in pipes {
        make_pipe(&scene.path(pipe));
    }
    let child = scene.start(&["put", "p5", "p4", "p3", "p2", "p1"]);
    let mut tee = scene.through("tee", &pipes);
    tee.stdin(File::open(scene.path("source")).unwrap()).stdout(Stdio::null());
    let tee = tee.spawn().unwrap();
    assert_eq!(finish(child).succeeded().lines(), vec![id_of(&content); 5]);
    finish(tee).succeeded();

    // Pipes that were written before they are opened; their writers have already ended.
    let shell = scene
        .through(
            "bash",
            &["-c", "exec \"$0\" put <(printf one) <(printf two)", env!("CARGO_BIN_EXE_graviton")],
        )
        .output();
    let shell = shell.unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), format!("{}\n{}\n", id_of(b"one"), id_of(b"two")));
    assert!(shell.status.success());

    let many: Vec<String> = (0..65).map(|number| format!("many {number}")).collect();
    for pipe in &many {
        make_pipe(&scene.path(pipe));
    }
    let arguments: Vec<&str> = ["put"].into_iter().chain(many.iter().map(String::as_str)).collect();
    scene.run(&arguments).failed(1, "invalid-argument", "at most 64");
}

#[test]
fn a_line_is_there_as_soon_as_its_turn_has_come() {
    let scene = Scene::new();
    scene.file("file", b"file");
    let mut child = scene.start(&["put", "file", "-"]);
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || while lines.next().is_some_and(|line| send.send(line.unwrap()).is_ok()) {});
    let next = || receive.recv_timeout(Duration::from_secs(20)).expect("the line does not come");
    // Standard input is still open.
    let line = next();
    assert_eq!(line, id_of(b"file"));
    assert!(scene.run(&["get", &line]).succeeded().stdout == b"file");
    input.write_all(b"input").unwrap();
    drop(input);
    assert_eq!(next(), id_of(b"input"));
    finish(child).succeeded();
}

#[test]
fn a_line_of_json_waits_for_no_other() {
    let scene = Scene::new();
    scene.file("file", b"file");
    make_pipe(&scene.path("pipe"));
    let mut child = scene.start(&["put", "--json", "pipe", "file"]);
    let mut line = String::new();
    // No writer has even opened the pipe yet.
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"path\":\"file\","), "{line}");
    File::create(scene.path("pipe")).unwrap().write_all(b"pipe").unwrap();
    let rest = finish(child).succeeded().json();
    assert_eq!((rest.len(), &rest[0]["path"]), (1, &"pipe".into()));
}

#[test]
fn json_is_a_receipt_a_line() {
    let scene = Scene::new();
    let content = noise(5, 1_000_000);
    scene.file("new", &content);
    scene.file("again", &content);
    for arguments in [["--json", "put", "new"], ["put", "--json", "again"]] {
        let outcome = scene.run(&arguments).succeeded();
        let fresh = arguments.contains(&"new");
        let receipt = &outcome.json()[0];
        let keys = ["path", "id", "size", "blocks", "fresh_blocks", "fresh_bytes", "fresh_stored_bytes"];
        let places: Vec<usize> =
            keys.iter().map(|key| outcome.text().find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{receipt}");
        assert_eq!(receipt.as_object().unwrap().len(), 8, "{receipt}");
        assert_eq!(receipt["path"], arguments[2].replace("--json", "again"));
        assert_eq!(receipt["id"], id_of(&content));
        assert_eq!(receipt["size"], 1_000_000);
        let blocks = receipt["blocks"].as_u64().unwrap();
        assert!(blocks >= 1);
        assert_eq!(receipt["fresh_blocks"], if fresh { blocks } else { 0 });
        assert_eq!(receipt["fresh_bytes"], if fresh { 1_000_000 } else { 0 });
        assert_eq!(receipt["fresh_stored_bytes"], receipt["fresh_bytes"]);
        let seconds = receipt["seconds"].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds < 60.0);
    }
}

#[test]
fn a_name_that_is_no_text_is_no_obstacle() {
    let scene = Scene::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff\"\n");
    std::fs::write(scene.path("").join(name), b"x").unwrap();
    let outcome = scene.run(&["put".as_ref(), "--json".as_ref(), name]).succeeded();
    assert_eq!(outcome.json()[0]["path"], "\u{fffd}\"\n");
    assert_eq!(outcome.json()[0]["path_base64"], "/yIK");
    // The name of a store need not be valid text either.
    for number in [0x80, 0x81] {
        let root = std::ffi::OsStr::from_bytes(&[b'r', number]).to_owned();
        let run = |arguments: &[&str]| {
            let mut all = vec![std::ffi::OsString::from("--root"), root.clone()];
            all.extend(arguments.iter().map(Into::into));
            scene.run(&all).succeeded()
        };
        let content = scene.file("content", &[number]);
        let id = run(&["put", content.to_str().unwrap()]).lines().remove(0);
        assert_eq!(run(&["get", &id]).stdout, [number]);
        run(&["rm", &id]);
        run(&["gc", "--grace", "0"]);
        run(&["verify"]);
        assert!(run(&["ls"]).stdout.is_empty() && scene.path("").join(&root).join("manifests.db").exists());
        let by_setting = [b"--set=GRAVITON_FS_ROOT=", root.as_encoded_bytes()].concat();
        assert!(
            scene
                .run(&[std::ffi::OsStr::from_bytes(&by_setting), "ls".as_ref()])
                .succeeded()
                .stdout
                .is_empty()
        );
        let by_environment = scene.command(&["ls"]).env("GRAVITON_FS_ROOT", &root).output().unwrap();
        assert!(by_environment.status.success() && by_environment.stdout.is_empty());
    }
    let other = std::ffi::OsStr::from_bytes(b"--set=GRAVITON_HASH=\xff");
    scene.run(&[other, "ls".as_ref()]).failed(1, "config", "GRAVITON_HASH is not Unicode text");
    // A leading hyphen needs `--` or a directory before it.
    scene.file("-x", b"y");
    scene.run(&["put", "--", "-x"]).succeeded();
    scene.run(&["put", "./-x"]).succeeded();
}

#[test]
fn expect_stores_only_what_was_expected() {
    let scene = Scene::new();
    let large = noise(6, 4_000_000);
    scene.file("small", b"small");
    scene.file("large", &large);
    for (name, content) in [("small", &b"small"[..]), ("large", &large)] {
        let other = id_of(b"other");
        scene.run(&["put", "--expect", &other, name]).failed(1, "digest-mismatch", &other);
        let same_size = id_of(&noise(7, content.len()));
        scene.run(&["put", "--expect", &same_size, name]).failed(1, "digest-mismatch", &same_size);
        scene.feed(&["put", "--expect", &same_size, "-"], content).failed(1, "digest-mismatch", &same_size);
    }
    scene.assert_blobs(0);
    for (name, content) in [("small", &b"small"[..]), ("large", &large)] {
        let outcome = scene.run(&["put", name, "--expect", &id_of(content)]).succeeded();
        assert_eq!(outcome.lines(), [id_of(content)]);
        assert_eq!(scene.feed(&["put", "-", "--expect", &id_of(content)], content).code, 0);
    }
    let sha256 = BlobId::of(Algo::Sha256, b"small").to_string();
    assert_eq!(scene.run(&["put", "small", "--expect", &sha256]).succeeded().lines(), [sha256]);
    assert_eq!(scene.run(&["put", "small", "large", "--expect", &id_of(b"small")]).code, 2);
}

#[test]
fn a_reader_of_the_ids_that_goes_away_stops_nothing() {
    let scene = Scene::new();
    scene.file("file", b"file");
    let mut child = scene.start(&["put", "file"]);
    drop(child.stdout.take());
    finish(child).succeeded();
    scene.assert_blobs(1);
}

#[test]
fn ids_that_cannot_be_written_are_an_error() {
    let scene = Scene::new();
    scene.file("file", b"file");
    let mut command = scene.command(&["put", "file"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    let outcome: Outcome = finish(command.spawn().unwrap());
    outcome.failed(1, "no-space", "cannot write standard output: no space left");
}

#[test]
fn an_identical_file_twice_in_one_run_is_stored_once() {
    let scene = Scene::new();
    scene.file("a", b"same");
    scene.file("b", b"same");
    let outcome = scene.run(&["put", "--json", "a", "b"]).succeeded();
    // Timing decides which of the two counts as fresh; there is one blob and one file.
    assert_eq!(outcome.json()[0]["id"], outcome.json()[1]["id"]);
    assert_eq!(scene.blocks().len(), 1);
    scene.assert_blobs(1);
}

#[test]
fn a_finished_put_leaves_the_store_tidy() {
    let scene = Scene::new();
    scene.file("small", b"x");
    scene.file("large", &noise(8, 5_000_000));
    scene.run(&["put", "small", "large", "missing"]);
    let mut names: Vec<_> = scene.snapshot(".graviton").into_keys().collect();
    names.retain(|path| path.parent().unwrap().ends_with(".graviton") && path.is_file());
    // The log was merged into the database and removed.
    assert!(names.iter().all(|path| !path.to_string_lossy().contains("-wal")), "{names:?}");
    assert_eq!(std::fs::read_dir(scene.path(".graviton/cas/blocks/.tmp")).unwrap().count(), 0);
    let program = "import sqlite3; c = sqlite3.connect('.graviton/manifests.db'); \
                   print(c.execute('SELECT count(*) FROM writer').fetchone()[0])";
    let output = scene.through("python3", &["-c", program]).output().unwrap();
    assert_eq!(output.stdout, b"0\n");
}
