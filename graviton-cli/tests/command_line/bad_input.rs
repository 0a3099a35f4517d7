//! Wrong input gives a clear error, and nothing is lost or half-done.

use crate::scene::{Scene, noise};

#[test]
fn ids_are_parsed_strictly() {
    let scene = Scene::new();
    let id = scene.put(b"x");
    for bad in
        ["", "x", "blake3:00:1", &id.to_uppercase(), &format!("{id}0:"), &format!(" {id}"), "../../etc:x:1"]
    {
        for arguments in [["get", bad], ["stat", bad], ["manifest", bad]] {
            scene.run(&arguments).failed(1, "invalid-id", "is not a blob id");
        }
        for command in ["rm", "restore", "verify"] {
            scene.run(&[command, &id, bad]).failed(1, "invalid-id", "is not a blob id");
        }
        scene.run(&["copy", "--from", "x", bad]).failed(1, "invalid-id", "is not a blob id");
        scene.run(&["ls", "--after", bad]).failed(1, "invalid-id", "is not a blob id");
        scene.run(&["put", "--expect", bad, "/dev/null"]).failed(1, "invalid-id", "is not a blob id");
    }
}

#[test]
fn settings_are_checked() {
    let scene = Scene::new();
    scene.file("file", b"x");
    for (setting, saying) in [
        ("GRAVITON_HUSH=x", "is not a setting"),
        ("=x", "is not a setting"),
        ("GRAVITON_HASH=md5", "GRAVITON_HASH"),
        ("GRAVITON_CHUNKER=fixed:0", "0"),
        ("GRAVITON_BLOB_BACKEND=minio", "QUASAR_MINIO_URL"),
        ("GRAVITON_FS_ROOT=", "GRAVITON_FS_ROOT"),
        ("GRAVITON_FS_BLOCK_PREFIX=../x", "GRAVITON_FS_BLOCK_PREFIX"),
    ] {
        scene.run(&["--set", setting, "put", "file"]).failed(1, "config", saying);
        scene.run(&["ls", "--set", setting]).failed(1, "config", saying);
    }
    scene.run(&["--root", "", "ls"]).failed(1, "config", "GRAVITON_FS_ROOT");
    for address in
        ["http://localhost:8081", "s3://bucket/prefix", ":memory:", "sqlite:foo.db", "memory:", "s3:/b"]
    {
        scene.run(&["--root", address, "put", "/etc/hostname"]).failed(
            1,
            "config",
            "an address, not a directory",
        );
    }
    scene.run(&["--root", "a", "--set", "GRAVITON_FS_ROOT=b", "ls"]).failed(1, "config", "contradicts");
    let output = scene.command(&["put", "file"]).env("GRAVITON_HASH", "md5").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error[config]: GRAVITON_HASH"));
    assert_eq!(scene.names(), ["file"]);
    assert!(!scene.path(".graviton").exists());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let scene = Scene::new();
    for line in [
        "",
        "nonsense",
        "put",
        "get",
        "stat",
        "--set X ls",
        "ls --limit -1",
        "ls --limit x",
        "stat a b",
        "put --x",
        "rm",
        "restore",
        "copy",
        "repair",
        "repair --from a b",
        "backup",
        "backup a b",
        "upgrade a",
        "gc x",
        "gc --grace 1",
        "gc --grace -1h",
        "gc --grace 1h30m",
        "gc --grace 1w",
        "gc --max-seconds 1s",
        "gc --max-blocks 0",
        "gc --max-bytes 10M",
        "gc --max-bytes 0",
        "gc --blocks-per-second 0",
        "verify --deep --rate 0",
        "verify --deep --rate fast",
        "verify --rate 1MiB",
        "verify --adopt x",
        "verify --from listing x",
    ] {
        let arguments: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let outcome = scene.run(&arguments);
        assert_eq!((outcome.code, outcome.stdout.len()), (2, 0), "{line}: {outcome:?}");
        assert!(outcome.stderr.contains("--help"), "{line}: {}", outcome.stderr);
    }
}

#[test]
fn help_and_version() {
    let scene = Scene::new();
    let version = scene.run(&["--version"]).succeeded();
    assert_eq!(version.text(), format!("graviton {}\n", env!("CARGO_PKG_VERSION")));
    let help = scene.run(&["--help"]).succeeded();
    let commands = [
        "put", "get", "stat", "ls", "manifest", "stats", "rm", "restore", "gc", "verify", "repair", "copy",
        "backup", "upgrade",
    ];
    for word in commands.into_iter().chain(["GRAVITON_CHUNKER", "Exit codes"]) {
        assert!(help.text().contains(word), "{word}");
    }
    for command in commands {
        let help = scene.run(&[command, "--help"]).succeeded();
        let told = help.text().contains("With --json")
            || ["get", "stat", "ls", "manifest", "stats"].contains(&command);
        assert!(told && help.text().contains("Usage: graviton"), "{command}");
    }
    let output =
        scene.through("sh", &["-c", "\"$0\" --help | true", env!("CARGO_BIN_EXE_graviton")]).output();
    assert!(output.unwrap().stderr.is_empty());
}

#[test]
fn what_is_wrong_with_an_amount_is_said() {
    let scene = Scene::new();
    for (arguments, saying) in [
        (&["gc", "--grace", "1h30m"][..], "use a whole number with s, m, h or d, such as 30m, or 0"),
        (&["gc", "--max-bytes", "10M"], "use a whole number of bytes, or one with KiB"),
        (&["verify", "--deep", "--rate", "0"], "it must be at least one byte"),
    ] {
        let outcome = scene.run(arguments);
        assert!(outcome.code == 2 && outcome.stderr.contains(saying), "{outcome:?}");
    }
}

#[test]
fn a_root_that_is_a_file_is_refused_and_left_alone() {
    let scene = Scene::new();
    scene.file("root", b"mine");
    scene.file("file", b"x");
    let outcome = scene.run(&["--root", "root", "put", "file"]);
    outcome.failed(1, "config", "it is a file");
    for arguments in [["--root", "root", "ls"], ["--root", "root/below", "ls"]] {
        let outcome = scene.run(&arguments);
        assert!(outcome.code == 1 && outcome.stderr.contains("not a directory"), "{outcome:?}");
    }
    let outcome = scene.run(&["--root", "root/below", "put", "file"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("not a directory"), "{outcome:?}");
    assert_eq!(std::fs::read(scene.path("root")).unwrap(), b"mine");
    assert_eq!(scene.names(), ["file", "root"]);
}

#[test]
fn only_bad_files_create_no_store() {
    let scene = Scene::new();
    scene.run(&["put", "missing"]).failed(1, "not-found", "cannot read missing");
    scene.run(&["put", "."]).failed(1, "invalid-argument", "cannot put .: it is a directory");
    assert!(!scene.path(".graviton").exists());
}

#[test]
fn a_name_cannot_fake_a_line() {
    let scene = Scene::new();
    let outcome = scene.run(&["put", "x\nerror[fake]: \u{1b}[2J"]);
    outcome.failed(1, "not-found", "cannot read x\\nerror[fake]: \\u{1b}[2J");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let scene = Scene::new();
    let id = scene.put(b"x");
    scene.file("file", b"y");
    scene.python("UPDATE store SET schema_version = schema_version + 997");
    let before = scene.snapshot(".graviton/cas");
    for arguments in [&["put", "file"][..], &["ls"], &["get", &id], &["stats"]] {
        scene.run(arguments).failed(1, "version", "newer version");
    }
    assert!(scene.snapshot(".graviton/cas") == before);
    scene.python("UPDATE store SET schema_version = schema_version - 997");
    assert_eq!(scene.run(&["get", &id]).succeeded().stdout, b"x");
}

#[test]
fn a_hole_in_a_manifest_is_no_short_stream() {
    let scene = Scene::new();
    let content = noise(1, 1_000);
    scene.file("file", &content);
    let put = scene.run(&["--set", "GRAVITON_CHUNKER=fixed:100", "put", "file"]).succeeded();
    let id = &put.lines()[0];
    scene.python("DELETE FROM blob_block WHERE block_offset = 900");
    scene.run(&["manifest", id]).failed(4, "missing-block", "gap");
    scene.run(&["get", id, "-o", "out"]).failed(4, "missing-block", "hole");
    scene.python("DELETE FROM blob_block WHERE block_offset = 300");
    scene.run(&["manifest", id]).failed(4, "missing-block", "gap");
    assert_eq!(scene.names(), ["file"]);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let scene = Scene::new();
    scene.file("file", b"x");
    std::fs::create_dir(scene.path(".graviton")).unwrap();
    scene.file(".graviton/manifests.db", &noise(2, 8192));
    for arguments in [&["put", "file"][..], &["ls"]] {
        let outcome = scene.run(arguments);
        assert_eq!((outcome.code, outcome.stdout.len()), (1, 0), "{outcome:?}");
        assert!(outcome.stderr.contains("manifests.db"), "{outcome:?}");
    }
    assert_eq!(std::fs::read(scene.path(".graviton/manifests.db")).unwrap(), noise(2, 8192));
}

#[test]
fn a_database_that_was_lost_is_not_replaced_by_a_new_one() {
    let scene = Scene::new();
    scene.put(b"content");
    scene.file("other", b"other content");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(scene.path(&format!(".graviton/manifests.db{end}")));
    }
    for _ in 0..2 {
        scene.run(&["put", "other"]).failed(1, "config", "manifests.db does not exist");
        assert!(!scene.path(".graviton/manifests.db").exists());
    }
}
