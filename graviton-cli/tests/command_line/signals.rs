//! Ctrl-C, SIGTERM, SIGHUP and SIGKILL in the middle of the work.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::scene::{PATIENCE, Scene, finish, make_pipe, noise, signal, until, until_it_opens_a_pipe};

/// A put from standard input that has read nearly all of this content.
fn put_under_way(scene: &Scene) -> (Child, Vec<u8>) {
    let mut child = scene.start(&["put", "-"]);
    let content = noise(1, 12_000_000);
    child.stdin.as_mut().unwrap().write_all(&content).unwrap();
    (child, content)
}

/// Ends a child whose standard input stays open.
fn finish_with_input(mut child: Child) -> crate::scene::Outcome {
    let _input = child.stdin.take();
    finish(child)
}

#[test]
fn an_interrupted_put_leaves_nothing_and_can_be_done_again() {
    for (number, exit_code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let scene = Scene::new();
        let (child, content) = put_under_way(&scene);
        let started = Instant::now();
        signal(&child, number);
        let outcome = finish_with_input(child);
        outcome.failed(exit_code, "cancelled", "interrupted");
        assert!(outcome.stdout.is_empty() && started.elapsed() < PATIENCE);
        scene.assert_blobs(0);
        let id = scene.put(&content);
        assert!(scene.run(&["get", &id]).succeeded().stdout == content);
    }
}

/// Nothing is ever written to the pipe, and the ids of the other sources would wait for its turn for ever.
#[test]
fn an_interrupted_put_prints_the_ids_of_what_it_stored() {
    for json in [false, true] {
        let scene = Scene::new();
        make_pipe(&scene.path("pipe"));
        let small = scene.file("small", b"small");
        let large = scene.file("large", &noise(6, 3_000_000));
        let mut arguments = vec!["put", "pipe", "small", "large"];
        arguments.extend(json.then_some("--json"));
        let child = scene.start(&arguments);
        until("they are stored", || scene.run(&["ls"]).text().lines().count() == 2);
        let started = Instant::now();
        signal(&child, Signal::INT);
        let outcome = finish_with_input(child);
        outcome.failed(130, "cancelled", "interrupted");
        assert!(started.elapsed() < PATIENCE);
        let ids: Vec<String> = if json {
            outcome.json().iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
        } else {
            outcome.lines()
        };
        let expected =
            [&small, &large].map(|file| scene.run(&["put".as_ref(), file.as_os_str()]).lines().remove(0));
        assert_eq!(BTreeSet::from_iter(ids), BTreeSet::from(expected), "{outcome:?}");
    }
}

#[test]
fn a_killed_put_leaves_nothing_and_can_be_done_again() {
    let scene = Scene::new();
    let before = scene.put(b"before");
    let (mut child, content) = put_under_way(&scene);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    scene.assert_blobs(1);
    assert_eq!(scene.run(&["get", &before]).succeeded().stdout, b"before");
    let id = scene.put(&content);
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let scene = Scene::new();
    let script = "trap '' HUP; exec \"$0\" put -";
    let mut shell = scene.through("sh", &["-c", script, env!("CARGO_BIN_EXE_graviton")]);
    let piped = std::process::Stdio::piped;
    let mut child = shell.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&noise(2, 3_000_000)).unwrap();
    signal(&child, Signal::HUP);
    child.stdin.as_mut().unwrap().write_all(&noise(3, 3_000_000)).unwrap();
    assert_eq!(finish(child).succeeded().lines().len(), 1);
}

/// A `get` that waits for a block, because a pipe without a writer is in its place.
fn get_under_way(scene: &Scene, signals: &[Signal]) {
    let content = noise(4, 3_000_000);
    let id = scene.put(&content);
    let block = scene.block(&id, 4);
    std::fs::remove_file(&block).unwrap();
    make_pipe(&block);
    let mut child = scene.start(&["get", &id, "-o", "out"]);
    until_it_opens_a_pipe(&child);
    for number in signals {
        signal(&child, *number);
    }
    if signals == [Signal::KILL] {
        child.wait().unwrap();
    } else {
        finish(child).failed(130, "cancelled", "interrupted");
    }
    assert_eq!(scene.names(), Vec::<String>::new());
}

#[test]
fn an_interrupted_get_leaves_no_file() {
    get_under_way(&Scene::new(), &[Signal::INT]);
}

#[test]
fn a_killed_get_leaves_no_file() {
    get_under_way(&Scene::new(), &[Signal::KILL]);
}

/// A `get` that is stuck in a write to a pipe without a reader.
fn stuck(scene: &Scene) -> Child {
    let id = scene.put(&noise(5, 3_000_000));
    let child = scene.start(&["get", &id]);
    let state = format!("/proc/{}/wchan", child.id());
    until("it writes to a full pipe", || {
        std::fs::read_to_string(&state).is_ok_and(|state| state.contains("pipe_write"))
    });
    child
}

#[test]
fn a_stuck_process_gives_up_by_itself() {
    let child = stuck(&Scene::new());
    signal(&child, Signal::INT);
    assert_eq!(wait(child).0, 130);
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let mut child = stuck(&Scene::new());
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it was not stuck");
    signal(&child, Signal::INT);
    let (exit_code, elapsed) = wait(child);
    assert_eq!(exit_code, 130);
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

/// Waits without reading the output.
fn wait(mut child: Child) -> (i32, Duration) {
    let started = Instant::now();
    until("it ends", || child.try_wait().unwrap().is_some());
    (child.wait().unwrap().code().unwrap(), started.elapsed())
}
