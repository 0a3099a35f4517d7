//! Filesystems that lack a feature, and stores that a group shares. `strace` makes calls fail as such
//! filesystems do.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::Mode;

use crate::left_out::leave_out;
use crate::scene::{Outcome, Scene, finish, noise};

/// Runs the program with failing calls; `None` without `strace`.
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
        // This filesystem also cannot rename without replacing.
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
        // SQLite syncs its own files, so only these paths are traced.
        let blocks = scene.path(&root).join("cas/blocks/blake3").display().to_string();
        let tmp = scene.path(&root).join("cas/blocks/.tmp").display().to_string();
        scene.run(&["--root", &root, "stats"]);
        let arguments = ["--root", &root, "put", "large"];
        let Some(put) = with_failing(&scene, &[&blocks, &tmp, &fault], &arguments) else { return };
        put.succeeded();
    }
}

/// SQLite does not repeat its own syncs, and the standard library repeats none of the other calls.
#[test]
fn a_call_of_sqlite_or_about_a_directory_is_made_again_as_well() {
    let scene = Scene::new();
    let content = noise(7, 3_000_000);
    scene.file("large", &content);
    scene.file("small", b"content");
    for calls in
        ["fsync,fdatasync,syncfs", "openat", "unlink,unlinkat,rmdir", "mkdir,mkdirat", "statx,newfstatat"]
    {
        let root = format!("store-{}", calls.replace(',', "-"));
        // The dynamic loader does not repeat calls. A transaction that is run again must not meet the same
        // fault each time.
        let when = if calls.contains("open") || calls.contains("stat") { "30+89" } else { "1+7" };
        let fault = format!("inject={calls}:error=EINTR:when={when}");
        let graviton =
            |arguments: &[&str]| with_failing(&scene, &[&fault], &[&["--root", &root], arguments].concat());
        let Some(put) = graviton(&["put", "large", "small"]) else { return };
        let id = put.succeeded().lines().remove(0);
        graviton(&["get", &id, "-o", "copy"]).unwrap().succeeded();
        assert!(std::fs::read(scene.path("copy")).unwrap() == content);
        graviton(&["rm", &id]).unwrap().succeeded();
        graviton(&["gc", "--grace", "0"]).unwrap().succeeded();
        graviton(&["put", "large"]).unwrap().succeeded();
        graviton(&["verify", "--deep"]).unwrap().succeeded();
        graviton(&["backup", &format!("{root}.db")]).unwrap().succeeded();
    }
}

#[test]
fn files_without_a_name_and_locks_may_both_be_missing() {
    let scene = Scene::new();
    scene.file("large", &noise(8, 3_000_000));
    // The bits of O_TMPFILE that O_DIRECTORY does not have, on the third argument of openat; flock.
    let lacking = |error: u32| format!("257/56:2:0x400000:0x400000:{error};73/32:0:0:0:{error}");
    for error in [38, 95, 22, 37] {
        let root = format!("store-{error}");
        let rules = lacking(error);
        let arguments = ["--root", &root, "put", "large"];
        let Some(put) = with_filter(&scene, &rules, &arguments) else { return };
        put.succeeded();
        with_filter(&scene, &rules, &["--root", &root, "gc", "--grace", "0"]).unwrap().succeeded();
        with_filter(&scene, &rules, &["--root", &root, "verify", "--deep"]).unwrap().succeeded();
        let left = std::fs::read_dir(scene.path(&root).join("cas/blocks/.tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are left");
    }
}

#[test]
fn a_filesystem_that_cannot_be_synced_as_a_whole_is_synced_file_by_file() {
    let scene = Scene::new();
    scene.file("large", &noise(9, 3_000_000));
    for error in [38, 22, 1, 95] {
        let rules = format!("306/267:0:0:0:{error}");
        let root = format!("store-{error}");
        for layout in ["files", "packs"] {
            let root = format!("{root}-{layout}");
            let layout = format!("GRAVITON_BLOCK_LAYOUT={layout}");
            let graviton = |arguments: &[&str]| {
                with_filter(&scene, &rules, &[&["--root", &root, "--set", &layout], arguments].concat())
            };
            let Some(put) = graviton(&["put", "large"]) else { return };
            put.succeeded();
        }
        // The next store that is not relaxed syncs everything that a relaxed one left unsynced.
        let relaxed = ["--root", &root, "--set", "GRAVITON_DURABILITY=relaxed", "put", "large"];
        with_filter(&scene, &rules, &relaxed).unwrap().succeeded();
        with_filter(&scene, &rules, &["--root", &root, "put", "large"]).unwrap().succeeded();
    }
    // The filesystem rejects the sync of a directory.
    let blocks = scene.path(".graviton/cas/blocks/blake3").display().to_string();
    scene.put(b"makes the directories");
    let fault = "inject=fsync:error=ENOSYS";
    if let Some(put) = with_failing(&scene, &[&blocks, fault], &["put", "large"]) {
        put.succeeded();
    }
}

#[test]
fn a_copy_is_written_where_names_and_permissions_cannot_be_had() {
    let scene = Scene::new();
    let content = noise(10, 3_000_000);
    let id = scene.put(&content);
    // ENOSYS, ENOENT, EOPNOTSUPP, EINVAL.
    for error in [38, 2, 95, 22] {
        let rules = format!("257/56:2:0x400000:0x400000:{error}");
        let Some(got) = with_filter(&scene, &rules, &["get", &id, "-o", "copy"]) else { return };
        got.succeeded();
        assert!(std::fs::read(scene.path("copy")).unwrap() == content);
        std::fs::remove_file(scene.path("copy")).unwrap();
    }
    for error in ["EPERM", "ENOSYS", "EOPNOTSUPP"] {
        let fault = format!("inject=chmod,fchmod,fchmodat:error={error}");
        // The second run replaces the first file, and would take over its permissions.
        for _ in 0..2 {
            let Some(got) = with_failing(&scene, &[&fault], &["get", &id, "-o", "copy"]) else { return };
            got.succeeded();
            assert!(std::fs::read(scene.path("copy")).unwrap() == content);
        }
        std::fs::remove_file(scene.path("copy")).unwrap();
    }
}

/// A limit on file size. The system also sends a signal for it, which ends a program by default.
#[test]
fn a_limit_on_the_size_of_files_is_a_lack_of_space() {
    let scene = Scene::new();
    scene.file("large", &noise(11, 6_000_000));
    let script = format!("ulimit -f 64; exec {} put large", env!("CARGO_BIN_EXE_graviton"));
    let mut command = scene.through("bash", &["-c", &script]);
    let refused = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    refused.failed(1, "no-space", "limit on the size of files");
    scene.run(&["put", "large"]).succeeded();
}

/// The database cannot grow, which SQLite reports as a failure of the disk.
#[test]
fn a_quota_that_the_database_meets_is_a_lack_of_space() {
    let scene = Scene::new();
    let id = scene.put(b"that is to be deleted");
    for (error, saying) in [("EDQUOT", "quota is used up"), ("ENOSPC", "no space left")] {
        // Only the database uses `pwrite64`.
        let fault = format!("inject=pwrite64:error={error}");
        let Some(removed) = with_failing(&scene, &[&fault], &["rm", &id]) else { return };
        removed.failed(1, "no-space", saying);
    }
    scene.run(&["rm", &id]).succeeded();
}

/// Two users; one of them made the store, in a directory of their group.
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
    // A directory in which the other users may run it.
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
    // A block that only its writer may read is written again by the user who cannot read it.
    run(USERS[0], 0o077, &["put", "one"]).succeeded();
    let again = run(USERS[1], 0o002, &["put", "one"]).succeeded().lines().remove(0);
    assert_eq!(again, id);
    assert_eq!(run(USERS[1], 0o002, &["get", &id]).succeeded().stdout, noise(5, 300_000));
    // Verification goes on after a pack that it may not read, and leaves its blocks to those who may.
    let in_packs = ["--set", "GRAVITON_BLOCK_LAYOUT=packs", "put", "third"];
    scene.file("third", &noise(7, 300_000));
    scene.file("fourth", &noise(8, 300_000));
    // The directory of packs is made by somebody who shares.
    run(USERS[0], 0o002, &["--set", "GRAVITON_BLOCK_LAYOUT=packs", "put", "fourth"]).succeeded();
    let id = run(USERS[0], 0o077, &in_packs).succeeded().lines().remove(0);
    let found = run(USERS[1], 0o002, &["verify", "--deep"]);
    assert_eq!(found.code, 4, "{found:?}");
    assert!(found.text().contains(&format!("in blob {id}")) && found.text().contains("corrupt"), "{found:?}");
    run(USERS[0], 0o002, &["verify", "--deep"]).succeeded();
    run(USERS[1], 0o002, &in_packs).succeeded();
    run(USERS[1], 0o002, &["verify", "--deep"]).succeeded();
}

/// Runs a program in which some calls fail, by a filter of the kernel (seccomp). A rule has the number of the
/// call on x86-64 and on aarch64, an argument, the bits of it to compare, their value, and the error.
/// `strace` cannot tell a lock from the other uses of `fcntl`.
const FILTER: &str = r#"
import ctypes, os, platform, struct, sys
step = lambda code, true, false, value: struct.pack("HBBI", code, true, false, value)
program = b""
for rule in sys.argv[1].split(";"):
    calls, *rest = rule.split(":")
    argument, mask, value, error = (int(number, 0) for number in rest)
    number = int(calls.split("/")[platform.machine() == "aarch64"])
    program += b"".join([
        step(0x20, 0, 0, 0), step(0x15, 0, 4, number), step(0x20, 0, 0, 16 + 8 * argument),
        step(0x54, 0, 0, mask), step(0x15, 0, 1, value), step(0x06, 0, 0, 0x50000 | error)])
program += step(0x06, 0, 0, 0x7fff0000)
code = ctypes.create_string_buffer(program)
pointer = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, pointer, 0, 0):
    sys.exit("no seccomp")
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Runs the program under these rules; `None` without Python.
fn with_filter(scene: &Scene, rules: &str, arguments: &[&str]) -> Option<Outcome> {
    if Command::new("python3").arg("--version").output().is_err() {
        leave_out("a filesystem that lacks something", "there is no python3");
        return None;
    }
    let all = [&["-c", FILTER, rules, env!("CARGO_BIN_EXE_graviton")], arguments].concat();
    let mut command = scene.through("python3", &all);
    Some(finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
}

/// Locking without waiting (`F_SETLK`), and shared memory (`MAP_SHARED`).
const LOCKS: &str = "72/25:1:0xffffffff:6";
const SHARED_MEMORY: &str = "9/222:3:1:1";

#[test]
fn a_database_needs_locks_and_shared_memory() {
    let scene = Scene::new();
    let id = scene.put(b"made on a disk");
    let without = |lacking: &str, error: i32, arguments: &[&str]| {
        with_filter(&scene, &format!("{lacking}:{error}"), arguments).unwrap()
    };
    if Command::new("python3").arg("--version").output().is_err() {
        return leave_out("a filesystem without locks", "there is no python3");
    }
    // ENOLCK, which NFS returns, and ENOSYS, EOPNOTSUPP and EINVAL, which other filesystems return.
    for error in [37, 38, 95, 22] {
        without(LOCKS, error, &["get", &id]).failed(1, "unsupported", "no locks");
        let new = format!("new-{error}");
        without(LOCKS, error, &["--root", &new, "put", "missing"]).failed(1, "not-found", "missing");
        scene.file("present", b"content");
        let refused = without(LOCKS, error, &["--root", &new, "put", "present"]);
        refused.failed(1, "unsupported", "no locks");
        assert!(!scene.path(&new).join("manifests.db").exists(), "an empty database is left behind");
    }
    // ENODEV.
    let refused = without(SHARED_MEMORY, 19, &["--root", "other", "put", "present"]);
    refused.failed(1, "unsupported", "share memory");
    scene.run(&["get", &id]).succeeded();
}

/// Only the type of a filesystem tells that it is on a network.
#[test]
fn a_database_is_not_put_on_a_network_filesystem_unless_one_host_has_it() {
    let scene = Scene::new();
    let id = scene.put(b"made on a disk");
    scene.file("present", b"content");
    for (kind, name) in
        [("6969000000000000", "NFS"), ("424d53ff00000000", "CIFS"), ("d00bd00b00000000", "Lustre")]
    {
        let fault = format!("inject=statfs:poke_exit=@arg2={kind}");
        let on_network = |arguments: &[&str]| with_failing(&scene, &["trace=statfs", &fault], arguments);
        for arguments in [&["get", &id][..], &["put", "present"], &["--root", "new/store", "put", "present"]]
        {
            let Some(refused) = on_network(arguments) else { return };
            refused.failed(1, "unsupported", name);
        }
        assert!(!scene.path("new").exists());
        // The advice works.
        let one_host = ["--set", "GRAVITON_SQLITE_NETWORK=one-host"];
        on_network(&[&one_host[..], &["get", &id]].concat()).unwrap().succeeded();
    }
}
