//! `copy`, `repair` and `backup`: between this store and another place.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::delete::absent;
use crate::scene::{PATIENCE, Scene, damage, finish, make_pipe, noise, signal, until, until_it_opens_a_pipe};

/// The other store of these tests, beside the default one.
fn put_elsewhere(scene: &Scene, content: &[u8]) -> String {
    scene.feed(&["--root", "other", "put", "-"], content).succeeded().lines().remove(0)
}

#[test]
fn blobs_are_copied_and_what_is_here_is_not_moved_again() {
    let scene = Scene::new();
    let contents = [noise(1, 3_000_000), b"small".to_vec(), Vec::new()];
    let ids: Vec<String> = contents.iter().map(|content| put_elsewhere(&scene, content)).collect();
    let before = scene.snapshot("other");
    let outcome = scene.run(&["copy", "--from", "other", &ids[1]]).succeeded();
    assert!(outcome.text().starts_with("copied 1 blob, 1 block, 5 B in "), "{}", outcome.text());
    let outcome = scene.run(&["copy", "--from", "other", "--json"]).succeeded();
    let mut summary = outcome.json().remove(0);
    let blocks = scene.blocks().len() - 1;
    summary["seconds"] = json!(0);
    let expected = json!({
        "kind": "summary", "blobs": 2, "present": 1, "blocks": blocks, "bytes": 3_000_000, "damaged": 0,
        "complete": true, "seconds": 0,
    });
    assert_eq!(summary, expected);
    for (id, content) in ids.iter().zip(&contents) {
        assert!(scene.run(&["get", id]).succeeded().stdout == *content);
    }
    let again = scene.run(&["copy", "--from", "other"]).succeeded();
    let expected = "copied 0 blobs, 0 blocks, 0 B (3 blobs already here) in ";
    assert!(again.text().starts_with(expected), "{}", again.text());
    scene.run(&["verify", "--deep"]).succeeded();
    assert!(scene.snapshot("other") == before, "the other store was changed");
}

#[test]
fn ids_that_are_not_there_and_blobs_that_are_damaged_do_not_stop_the_others() {
    let scene = Scene::new();
    let ids = [noise(2, 1_000_000), noise(3, 1_000_000)].map(|content| put_elsewhere(&scene, &content));
    let outcome = scene.run(&["copy", "--from", "other", &absent(), &ids[0]]);
    outcome.failed(3, "not-found", &absent());
    assert!(outcome.text().starts_with("copied 1 blob, "), "{}", outcome.text());
    scene.run(&["copy", "--from", "other", "no"]).failed(1, "invalid-id", "is not a blob id");

    let hurt = Scene::new();
    std::fs::rename(scene.path("other"), hurt.path(".graviton")).unwrap();
    damage(&hurt.block(&ids[1], 0));
    let from = hurt.path(".graviton");
    let from = from.to_str().unwrap();
    let target = Scene::new();
    let outcome = target.run(&["copy", "--from", from]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (4, ""));
    assert_eq!(outcome.lines()[0], format!("damaged {}", ids[1]));
    assert!(outcome.lines()[1].starts_with("copied 1 blob, "), "{}", outcome.text());
    let outcome = target.run(&["copy", "--from", from, "--json", &ids[1]]);
    assert_eq!(outcome.json()[0], json!({"kind": "damaged", "id": ids[1]}));
    assert_eq!((outcome.code, &outcome.json()[1]["damaged"]), (4, &json!(1)));
    target.assert_blobs(1);
    target.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn another_store_is_a_directory_or_a_file_of_settings_and_never_made() {
    let scene = Scene::new();
    let id = put_elsewhere(&scene, b"content");
    scene.file("settings", b"# the other one\n\nGRAVITON_FS_ROOT=other\n");
    scene.run(&["copy", "--from", "settings", &id]).succeeded();
    let script = "exec \"$0\" --root piped copy --from <(echo GRAVITON_FS_ROOT=other)";
    let mut shell = scene.through("bash", &["-c", script, env!("CARGO_BIN_EXE_graviton")]);
    let piped = shell.output().unwrap();
    assert!(piped.status.success() && scene.path("piped/manifests.db").exists(), "{piped:?}");

    std::fs::create_dir(scene.path("empty")).unwrap();
    scene.file("elsewhere", b"GRAVITON_FS_ROOT=nowhere\n");
    scene.file("hush", b"\nGRAVITON_HUSH=x\n");
    scene.file("secret", b"PG_JDBC_URL=jdbc:postgresql://h/d\nPG_PASSWORD=xyzzy\nxyzzy\n");
    scene.file("binary", &noise(4, 5_000));
    let names = scene.names();
    for command in [&["copy", "--from"][..], &["--root", "piped", "repair", "--from"]] {
        for (other, code, kind, saying) in [
            ("missing", 3, "not-found", "missing does not exist"),
            ("empty", 3, "not-found", "cannot use empty: there is no store"),
            ("elsewhere", 3, "not-found", "cannot use elsewhere: there is no store"),
            ("hush", 1, "config", "hush: line 2: \"GRAVITON_HUSH\" is not a setting"),
            ("secret", 1, "config", "secret: line 3 is not of the form NAME=VALUE"),
            ("binary", 1, "config", "binary is not a file of settings"),
        ] {
            let outcome = scene.run(&[command, &[other]].concat());
            outcome.failed(code, kind, saying);
            assert!(!outcome.stderr.contains("xyzzy"), "{}", outcome.stderr);
        }
    }
    assert_eq!(scene.names(), names);
    assert!(std::fs::read_dir(scene.path("empty")).unwrap().next().is_none());
    // A failed copy creates no store either.
    scene.run(&["--root", "target", "copy", "--from", "missing"]).failed(3, "not-found", "missing");
    scene.run(&["--root", "target", "copy", "--from", "other", &absent()]).failed(3, "not-found", "0000");
    assert!(!scene.path("target").exists());
}

#[test]
fn bad_blocks_are_replaced_by_those_of_another_store() {
    let scene = Scene::new();
    let content = noise(5, 3_000_000);
    let id = scene.put(&content);
    let only_here = scene.put(b"only here");
    put_elsewhere(&scene, &content);
    let (flipped, gone) = (scene.block(&id, 1), scene.block(&id, 3));
    damage(&flipped);
    let bytes = flipped.metadata().unwrap().len() + gone.metadata().unwrap().len();
    std::fs::remove_file(&gone).unwrap();
    assert_eq!(scene.run(&["verify", "--deep"]).code, 4);
    let before = scene.snapshot("other");
    let outcome = scene.run(&["repair", "--from", "other"]).succeeded();
    let expected = format!("checked {} blocks, repaired 2 (", scene.blocks().len());
    assert!(outcome.text().starts_with(&expected), "{}", outcome.text());
    scene.run(&["verify", "--deep"]).succeeded();
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);

    damage(&flipped);
    damage(&gone);
    let lost = scene.block(&only_here, 0);
    std::fs::remove_file(&lost).unwrap();
    let outcome = scene.run(&["repair", "--from", "other", "--json"]);
    let key = format!("blake3:{}", lost.file_name().unwrap().to_str().unwrap().replace('-', ":"));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (4, ""));
    assert_eq!(outcome.json()[0], json!({"kind": "lost", "key": key}));
    let mut summary = outcome.json().remove(1);
    summary["seconds"] = json!(0);
    let checked = scene.blocks().len() + 1;
    let expected = json!({
        "kind": "summary", "checked": checked, "repaired": 2, "bytes": bytes, "lost": 1, "complete": true,
        "seconds": 0,
    });
    assert_eq!(summary, expected);
    let outcome = scene.run(&["repair", "--from", "other"]);
    assert_eq!((outcome.code, &outcome.lines()[0]), (4, &format!("lost {key}")));
    assert!(outcome.lines()[1].contains("repaired 0 (0 B) in "), "{}", outcome.text());
    assert!(scene.snapshot("other") == before, "the other store was changed");
    assert_eq!(scene.put(b"only here"), only_here);
    scene.run(&["repair", "--from", "other"]).succeeded();
}

/// A store whose third block is a pipe without a writer, so a read of it waits.
fn other_with_a_pipe(scene: &Scene) -> String {
    let there = Scene::new();
    there.file("file", &noise(6, 3_000_000));
    let id = there.run(&["put", "file"]).succeeded().lines().remove(0);
    let block = there.block(&id, 2);
    std::fs::remove_file(&block).unwrap();
    make_pipe(&block);
    std::fs::rename(there.path(".graviton"), scene.path("other")).unwrap();
    id
}

#[test]
fn an_interrupted_copy_leaves_what_is_whole_and_goes_on_later() {
    let scene = Scene::new();
    let id = other_with_a_pipe(&scene);
    let child = scene.start(&["copy", "--from", "other"]);
    until_it_opens_a_pipe(&child);
    let started = Instant::now();
    signal(&child, Signal::INT);
    let outcome = finish(child);
    outcome.failed(130, "cancelled", "interrupted");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    scene.assert_blobs(0);
    std::fs::remove_dir_all(scene.path("other")).unwrap();
    put_elsewhere(&scene, &noise(6, 3_000_000));
    scene.run(&["copy", "--from", "other"]).succeeded();
    assert!(scene.run(&["get", &id]).succeeded().stdout == noise(6, 3_000_000));
}

#[test]
fn an_interrupted_repair_keeps_what_it_mended() {
    let scene = Scene::new();
    let ids = [b"first", b"later"].map(|content| {
        put_elsewhere(&scene, content);
        scene.put(content)
    });
    let (first, last) = (scene.block(&ids[0], 0), scene.block(&ids[1], 0));
    std::fs::remove_file(&first).unwrap();
    std::fs::remove_file(&last).unwrap();
    make_pipe(&last);
    let child = scene.start(&["repair", "--from", "other"]);
    until("the first one is back", || first.exists());
    until_it_opens_a_pipe(&child);
    signal(&child, Signal::INT);
    let outcome = finish(child);
    outcome.failed(130, "cancelled", "interrupted");
    assert!(outcome.text().contains(", repaired 1 ("), "{}", outcome.text());
    std::fs::remove_file(&last).unwrap();
    scene.run(&["repair", "--from", "other"]).succeeded();
    scene.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn a_backup_is_made_while_others_put_and_is_a_store_again() {
    let scene = Scene::new();
    let before = scene.put(&noise(7, 1_000_000));
    let mut putting = scene.start(&["put", "-"]);
    std::io::Write::write_all(putting.stdin.as_mut().unwrap(), &noise(8, 4_000_000)).unwrap();
    let outcome = scene.run(&["backup", "kept"]).succeeded();
    let size = scene.path("kept").metadata().unwrap().len();
    assert!(outcome.text().starts_with("wrote kept, ") && outcome.text().contains("KiB, in "), "{outcome:?}");
    let after = finish(putting).succeeded().lines().remove(0);
    let report = scene.run(&["backup", "--json", "also kept"]).succeeded().json().remove(0);
    assert_eq!((&report["file"], report.as_object().unwrap().len()), (&json!("also kept"), 3));
    assert!(report["bytes"].as_u64().unwrap() >= size && report["seconds"].is_number());
    assert_eq!(scene.names(), ["also kept", "kept"], "something else is left");

    // As in docs/operations.md. Blobs that were put after the backup have no rows; their blocks are known
    // again after another put.
    for name in ["manifests.db-wal", "manifests.db-shm"] {
        let _ = std::fs::remove_file(scene.path(".graviton").join(name));
    }
    std::fs::rename(scene.path("kept"), scene.path(".graviton/manifests.db")).unwrap();
    let verified = scene.run(&["verify", "--deep", "--take-over", "--json"]).succeeded();
    assert!(verified.json().last().unwrap()["unreferenced"].as_u64().unwrap() > 0, "{}", verified.text());
    scene.run(&["get", &before]).succeeded();
    scene.run(&["get", &after]).failed(3, "not-found", &after);
    assert_eq!(scene.put(&noise(8, 4_000_000)), after);
    let verified = scene.run(&["verify", "--deep", "--json"]).succeeded();
    assert_eq!(verified.json().last().unwrap()["unreferenced"], 0);
}

#[test]
fn a_backup_replaces_nothing_and_needs_a_place() {
    let scene = Scene::new();
    scene.run(&["backup", "kept"]).failed(3, "not-found", "there is no store");
    scene.put(b"x");
    scene.file("mine", b"mine");
    scene.run(&["backup", "mine"]).failed(1, "invalid-argument", "mine is there already");
    scene.run(&["backup", "missing/kept"]).failed(1, "not-found", "cannot write missing/kept");
    assert_eq!(std::fs::read(scene.path("mine")).unwrap(), b"mine");
    assert_eq!(scene.names(), ["mine"]);
    assert!(!Path::new("/dev/kept").exists());
}

/// Another version of the SQLite library can read it too.
#[test]
fn a_backup_is_a_plain_sqlite_database() {
    let scene = Scene::new();
    scene.put(b"x");
    scene.run(&["backup", "kept"]).succeeded();
    let program =
        "import sqlite3; print(sqlite3.connect('kept').execute('SELECT count(*) FROM blob').fetchone()[0])";
    let mut python: Command = scene.through("python3", &["-c", program]);
    assert_eq!(python.output().unwrap().stdout, b"1\n");
}
