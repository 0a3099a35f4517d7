//! Filesystems that lack something, and stores that a group shares. `strace` makes calls fail as they do
//! there.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::Mode;

use crate::left_out::leave_out;
use crate::scene::{Outcome, Scene, finish, noise};

/// Runs the program with calls that fail; `None` where there is no `strace`.
fn with_failing(scene: &Scene, faults: &[&str], arguments: &[&str]) -> Option<Outcome> {
    if Command::new("strace").arg("--version").output().is_err() {
        leave_out("failing calls", "there is no strace");
        return None;
    }
    let mut all = vec!["-f", "-qq", "-o", "/dev/null"];
    for fault in faults {
        all.extend(if fault.starts_with('/') { ["-P", fault] } else { ["-e", fault] });
    }
    all.push(env!("CARGO_BIN_EXE_graviton"));
    all.extend(arguments);
    let mut command = scene.through("strace", &all);
    Some(finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
}

#[test]
fn a_directory_that_cannot_be_synced_needs_no_sync() {
    let scene = Scene::new();
    scene.file("small", &noise(1, 2_000));
    scene.file("large", &noise(2, 3_000_000));
    scene.put(b"makes the directories");
    let blocks = scene.path(".graviton/cas/blocks/blake3").display().to_string();
    let here = scene.path("").display().to_string();
    let here = here.trim_end_matches('/');
    for error in ["EINVAL", "EOPNOTSUPP"] {
        let fault = format!("inject=fsync:error={error}");
        for name in ["small", "large"] {
            let Some(put) = with_failing(&scene, &[&blocks, &fault], &["put", name]) else { return };
            put.succeeded();
        }
        let copy = format!("copy-{error}.db");
        with_failing(&scene, &[here, &fault], &["backup", &copy]).unwrap().succeeded();
        assert!(scene.path(&copy).exists());
    }
    scene.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn a_filesystem_that_lets_nobody_link_is_written_to_by_renaming() {
    let scene = Scene::new();
    let content = noise(3, 3_000_000);
    scene.file("large", &content);
    for (place, error) in ["EACCES", "EPERM", "EOPNOTSUPP"].into_iter().enumerate() {
        let fault = format!("inject=linkat,link:error={error}");
        let root = format!("store-{place}");
        let graviton =
            |arguments: &[&str]| with_failing(&scene, &[&fault], &[&["--root", &root], arguments].concat());
        let Some(put) = graviton(&["put", "large"]) else { return };
        let id = put.succeeded().lines().remove(0);
        graviton(&["get", &id, "-o", "copy"]).unwrap().succeeded();
        assert!(std::fs::read(scene.path("copy")).unwrap() == content);
        assert_eq!(
            std::fs::metadata(scene.path("copy")).unwrap().mode() & 0o777,
            std::fs::metadata(scene.path("large")).unwrap().mode() & 0o777
        );
        graviton(&["backup", &format!("{place}.db")]).unwrap().succeeded();
        graviton(&["backup", &format!("{place}.db")]).unwrap().failed(1, "invalid-argument", "there already");
        // Nor does it rename without replacing.
        let rename = "inject=renameat2:error=EINVAL";
        let arguments = ["--root", &root, "backup", &format!("{place}-2.db")];
        with_failing(&scene, &[&fault, rename], &arguments).unwrap().succeeded();
        with_failing(&scene, &[&fault, rename], &arguments).unwrap().failed(
            1,
            "invalid-argument",
            "there already",
        );
        graviton(&["verify", "--deep"]).unwrap().succeeded();
        let left = std::fs::read_dir(scene.path(&root).join("cas/blocks/.tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are left");
    }
}

#[test]
fn a_call_that_a_signal_interrupts_is_made_again() {
    let scene = Scene::new();
    scene.file("large", &noise(4, 6_000_000));
    for call in ["fsync", "syncfs", "linkat"] {
        let fault = format!("inject={call}:error=EINTR:when=1+2");
        let root = format!("store-{call}");
        // SQLite syncs its own files.
        let blocks = scene.path(&root).join("cas/blocks/blake3").display().to_string();
        let tmp = scene.path(&root).join("cas/blocks/.tmp").display().to_string();
        scene.run(&["--root", &root, "stats"]);
        let arguments = ["--root", &root, "put", "large"];
        let Some(put) = with_failing(&scene, &[&blocks, &tmp, &fault], &arguments) else { return };
        put.succeeded();
    }
}

/// The database cannot grow, and SQLite calls it a failure of the disk.
#[test]
fn a_quota_that_the_database_meets_is_a_lack_of_space() {
    let scene = Scene::new();
    let id = scene.put(b"that is to be deleted");
    for (error, saying) in [("EDQUOT", "quota is used up"), ("ENOSPC", "no space left")] {
        // The database alone is written to at places.
        let fault = format!("inject=pwrite64:error={error}");
        let Some(removed) = with_failing(&scene, &[&fault], &["rm", &id]) else { return };
        removed.failed(1, "no-space", saying);
    }
    scene.run(&["rm", &id]).succeeded();
}

/// Two users, of whom one has made the store, in a directory of their group.
#[test]
fn a_group_shares_a_store() {
    const USERS: [u32; 2] = [12_341, 12_342];
    const GROUP: u32 = 12_340;
    if !rustix::process::geteuid().is_root() {
        return leave_out("a store of a group", "this is not root");
    }
    let scene = Scene::new();
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let shared = scene.path("shared");
    std::fs::create_dir(&shared).unwrap();
    chown(&shared, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o2775)).unwrap();
    // Where others may run it.
    let program = scene.path("graviton");
    std::fs::copy(env!("CARGO_BIN_EXE_graviton"), &program).unwrap();
    let run = |user: u32, umask: u32, arguments: &[&str]| {
        let arguments = [&["--root", "shared/store"], arguments].concat();
        let mut command = scene.through(program.to_str().unwrap(), &arguments);
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let child = command.uid(user).gid(GROUP).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        rustix::process::umask(before);
        finish(child.unwrap())
    };
    scene.file("one", &noise(5, 300_000));
    scene.file("other", &noise(6, 300_000));
    let id = run(USERS[0], 0o002, &["put", "one"]).succeeded().lines().remove(0);
    run(USERS[1], 0o002, &["put", "other"]).succeeded();
    run(USERS[1], 0o002, &["rm", &id]).succeeded();
    run(USERS[1], 0o002, &["gc", "--grace", "0"]).succeeded();
    run(USERS[0], 0o002, &["verify", "--deep"]).succeeded();
    // A block that its writer kept for himself is written again by who may not read it.
    run(USERS[0], 0o077, &["put", "one"]).succeeded();
    let again = run(USERS[1], 0o002, &["put", "one"]).succeeded().lines().remove(0);
    assert_eq!(again, id);
    assert_eq!(run(USERS[1], 0o002, &["get", &id]).succeeded().stdout, noise(5, 300_000));
}
