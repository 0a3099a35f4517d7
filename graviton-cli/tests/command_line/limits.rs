//! Limits of the system on one process: threads and open files.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::scene::{Outcome, Scene, finish, noise};

/// Runs the program under a limit of `ulimit`, as an ordinary user, because root has no limit on threads.
fn limited(scene: &Scene, limit: &str, arguments: &[&str]) -> Outcome {
    const NOBODY: u32 = 65_534;
    // A directory in which the other user may run it.
    let program = scene.path("graviton");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_graviton"), &program).unwrap();
        std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    }
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let all = [&["-c", &script, program.to_str().unwrap()], arguments].concat();
    let mut command = scene.through("bash", &all);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn without_threads_it_says_so() {
    let scene = Scene::new();
    scene.file("file", b"content");
    let refused = limited(&scene, "-u 1", &["put", "file"]);
    refused.failed(1, "backend-unavailable", "cannot start the threads");
    assert!(
        refused.stderr.contains("ulimit -u") && !refused.stderr.contains("panicked"),
        "{}",
        refused.stderr
    );
    limited(&scene, "-u 1000", &["put", "file"]).succeeded();
}

/// With any number of threads the command succeeds, or its error names the missing resource; it never hangs.
#[test]
fn with_few_threads_it_stores_or_says_so() {
    const FEWEST: usize = 2;
    let scene = Scene::new();
    scene.file("large", &noise(1, 9_000_000));
    scene.file("small", &noise(2, 3_000));
    let (mut refused, mut stored) = (0, 0);
    for limit in FEWEST..14 {
        let root = format!("store-{limit}");
        let outcome = limited(&scene, &format!("-u {limit}"), &["--root", &root, "put", "large", "small"]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        if outcome.code == 0 {
            stored += 1;
            continue;
        }
        refused += 1;
        assert!(outcome.stderr.contains("error[backend-unavailable]"), "{limit}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("ulimit -u"), "{limit}: {}", outcome.stderr);
    }
    assert!(refused > 0 && stored > 0, "{refused} refused, {stored} stored");
}

/// Whichever call gets no descriptor, the error says only that descriptors are missing.
#[test]
fn without_descriptors_it_says_so() {
    let scene = Scene::new();
    scene.file("file", b"content");
    let (mut failed, mut at_the_database) = (0, 0);
    for limit in 4..40 {
        let outcome = limited(&scene, &format!("-n {limit}"), &["put", "file"]);
        if outcome.code == 0 {
            continue;
        }
        // The shell and the dynamic loader need some descriptors too.
        if outcome.code > 100 && !outcome.stderr.contains("panicked") {
            continue;
        }
        outcome.failed(1, "backend-unavailable", "too many open files");
        assert!(outcome.stderr.contains("ulimit -n"), "{}", outcome.stderr);
        failed += 1;
        at_the_database += u32::from(outcome.stderr.contains("the database"));
    }
    assert!(failed > 4 && at_the_database > 0, "{failed} failed, {at_the_database} at the database");
    limited(&scene, "-n 40", &["put", "file"]).succeeded();
}
