//! Progress: on a terminal, for work that takes over a second, and in no other case.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use crate::scene::{Outcome, Scene, finish, make_pipe, noise};

/// Runs a program in a terminal of its own, with its output in one stream.
const IN_A_TERMINAL: &str = "
import os, pty, sys
def read(fd):
    return os.read(fd, 65536)
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))
";

/// Puts from a pipe whose second half comes late.
fn slow_put(scene: &Scene, terminal: bool, options: &[&str], pause: Duration) -> Outcome {
    make_pipe(&scene.path("pipe"));
    let mut arguments = vec![env!("CARGO_BIN_EXE_graviton"), "put", "pipe"];
    arguments.extend(options);
    let mut command = if terminal {
        scene.through("python3", &[&["-c", IN_A_TERMINAL], &arguments[..]].concat())
    } else {
        scene.command(&arguments[1..])
    };
    let piped = std::process::Stdio::piped;
    let child = command.env("TERM", "xterm").stdout(piped()).stderr(piped()).spawn().unwrap();
    let mut pipe = File::create(scene.path("pipe")).unwrap();
    pipe.write_all(&noise(1, 3_000_000)).unwrap();
    std::thread::sleep(pause);
    pipe.write_all(&noise(2, 3_000_000)).unwrap();
    drop(pipe);
    finish(child)
}

const LONG: Duration = Duration::from_millis(1800);

#[test]
fn a_terminal_shows_progress_with_its_rate() {
    let outcome = slow_put(&Scene::new(), true, &[], LONG);
    assert!(outcome.text().contains("storing") && outcome.text().contains("/s"), "{}", outcome.text());
    assert!(outcome.text().contains("blake3:"), "{}", outcome.text());
}

#[test]
fn nothing_else_does() {
    for (terminal, options, pause) in [
        (false, &[][..], LONG),
        (true, &["--quiet"], LONG),
        (true, &["-q", "--json"], LONG),
        (true, &[], Duration::ZERO),
    ] {
        let outcome = slow_put(&Scene::new(), terminal, options, pause);
        assert!(!outcome.text().contains("storing"), "{options:?}: {}", outcome.text());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    }
}

#[test]
fn long_work_tells_how_far_it_got() {
    let scene = Scene::new();
    scene.file("file", &noise(3, 30_000));
    scene.run(&["--set", "GRAVITON_CHUNKER=fixed:1000", "put", "file"]).succeeded();
    let arguments = ["verify", "--deep", "--rate", "15kB"];
    let program = [&["-c", IN_A_TERMINAL, env!("CARGO_BIN_EXE_graviton")], &arguments[..]].concat();
    let output = scene.through("python3", &program).env("TERM", "xterm").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("verifying") && text.contains("1 blob, 2"), "{text}");
    assert!(text.contains(": no damage"), "{text}");
    let outcome = scene.run(&arguments).succeeded();
    assert!(!outcome.text().contains("verifying"), "{}", outcome.text());
}
