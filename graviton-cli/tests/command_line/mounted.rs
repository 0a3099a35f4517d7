//! A full disk, and a disk that is mounted read-only: with real mounts.

use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use crate::left_out::leave_out;
use crate::mount::{Mount, fill};
use crate::scene::{Outcome, Scene, noise};

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "16m") else { return };
    let before = noise(1, 1_000_000);
    scene.file("before", &before);
    scene.file("large", &noise(2, 32_000_000));
    scene.file("middle", &noise(3, 1_900_000));
    let id = scene.run(&["--root", "disk/store", "put", "before"]).succeeded().lines().remove(0);
    // Makes SQLite create the index of its log now. A later test covers a store without it.
    scene.run(&["--root", "disk/store", "ls"]).succeeded();
    let intact = |blobs: usize| {
        let listed = scene.run(&["--root", "disk/store", "ls"]).succeeded();
        assert_eq!(listed.lines().len(), blobs, "{listed:?}");
        assert!(scene.run(&["--root", "disk/store", "get", &id]).succeeded().stdout == before);
    };
    fill(&scene.path("disk"));
    scene.run(&["--root", "disk/store", "put", "middle"]).failed(1, "no-space", "no space left");
    intact(1);
    std::fs::remove_file(scene.path("disk/fill")).unwrap();
    scene.run(&["--root", "disk/store", "put", "middle"]).succeeded();
    scene.run(&["--root", "disk/store", "put", "large"]).failed(1, "no-space", "no space left");
    intact(2);
}

/// The index of a directory of ext4 has two levels: with blocks of 1 KiB it is full at 85,176 such names.
#[test]
fn a_directory_that_takes_no_more_files_is_not_a_full_disk() {
    let scene = Scene::new();
    let image = scene.path("image");
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let options = ["-q", "-b", "1024", "-N", "120000", "-O", "^large_dir,^has_journal"];
    let Ok(made) = Command::new("mkfs.ext4").args(options).arg(&image).output() else {
        return leave_out("a full directory", "there is no mkfs.ext4");
    };
    assert!(made.status.success(), "{made:?}");
    let Some(_mount) = Mount::new(scene.path("disk"), &["-o", "loop", image.to_str().unwrap()]) else {
        return;
    };
    scene.file("one", &noise(20, 1_000));
    let id = scene.run(&["--root", "disk/store", "put", "one"]).succeeded().lines().remove(0);
    let blocks = scene.path("disk/store/cas/blocks/blake3");
    let name = |number: u32| blocks.join(format!("{number:064x}-262144"));
    let first = scene.path("disk/first");
    std::fs::write(&first, "").unwrap();
    let stats = || scene.run(&["--root", "disk/store", "stats"]);
    let share = |stats: &Outcome| -> f64 {
        let lines = stats.lines();
        let line = lines.iter().find(|line| line.starts_with("directory share")).expect("it is told");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let empty = stats();
    assert!(share(&empty) < 0.05 && !empty.stderr.contains("warning"), "{empty:?}");
    // A file has at most 65,000 names. One part of the index is full before the others.
    let mut refused = 0;
    for number in 0..200_000 {
        if number % 50_000 == 49_999 {
            std::fs::remove_file(&first).unwrap();
            std::fs::write(&first, "").unwrap();
        }
        refused += u32::from(std::fs::hard_link(&first, name(number)).is_err());
    }
    assert!(refused > 10_000, "{refused}");
    let full = stats();
    assert!(
        share(&full) > 0.9 && full.stderr.contains("warning: a directory of blocks is nearly full"),
        "{full:?}"
    );
    let put = |seed| {
        scene.file("other", &noise(seed, 1_000));
        scene.run(&["--root", "disk/store", "put", "other"])
    };
    let failed = (21..61).map(put).find(|put| put.code != 0).expect("every name finds a place");
    failed.failed(1, "no-space", "takes no more files");
    scene.run(&["--root", "disk/store", "get", &id]).succeeded();
}

/// A deletion writes, but the disk has no room. It frees the reserve for that.
#[test]
fn a_full_disk_is_made_empty_by_deleting() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "48m") else { return };
    scene.file("large", &noise(6, 12_000_000));
    scene.file("kept", &noise(7, 1_000_000));
    let graviton = |arguments: &[&str]| scene.run(&[&["--root", "disk/store"], arguments].concat());
    let id = graviton(&["put", "large"]).succeeded().lines().remove(0);
    let kept = graviton(&["put", "kept"]).succeeded().lines().remove(0);
    assert!(scene.path("disk/store/reserve").exists());
    fill(&scene.path("disk"));
    graviton(&["put", "large", "--set", "GRAVITON_HASH=sha256"]).failed(1, "no-space", "no space left");
    graviton(&["rm", &id]).succeeded();
    fill(&scene.path("disk"));
    // The reserve is used up, and the error says that no space is left.
    graviton(&["rm", &kept]).failed(1, "no-space", "no space left");
    std::fs::remove_file(scene.path("disk/fill")).unwrap();
    graviton(&["gc"]).succeeded();
    assert!(scene.path("disk/store/reserve").exists());
    fill(&scene.path("disk"));
    let freed = graviton(&["gc", "--grace", "0"]).succeeded();
    assert!(
        freed.text().starts_with("freed 1 blob, ") && freed.text().contains("11.44 MiB"),
        "{}",
        freed.text()
    );
    graviton(&["put", "large", "--set", "GRAVITON_CHUNKER=fixed:4096"]).succeeded();
    graviton(&["verify", "--deep"]).succeeded();
    assert!(graviton(&["get", &kept]).succeeded().stdout == noise(7, 1_000_000));
}

/// SQLite cannot create `manifests.db-shm`, which it needs even to read.
#[test]
fn a_store_on_a_disk_without_a_free_byte_can_be_read() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "16m") else { return };
    scene.file("file", b"x");
    let id = scene.run(&["--root", "disk/store", "put", "file"]).succeeded().lines().remove(0);
    fill(&scene.path("disk"));
    scene.file("other", b"y");
    scene.run(&["--root", "disk/store", "put", "other"]).failed(1, "no-space", "no space left");
    // This put writes nothing.
    assert_eq!(scene.run(&["--root", "disk/store", "put", "file"]).succeeded().lines(), [id.as_str()]);
    assert_eq!(scene.run(&["--root", "disk/store", "get", &id]).succeeded().stdout, b"x");
}

#[test]
fn a_disk_that_fills_up_during_a_put_of_many_spares_those_that_fit() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "16m") else { return };
    scene.file("first", b"first");
    scene.file("large", &noise(2, 32_000_000));
    let outcome = scene.run(&["--root", "disk/store", "put", "first", "large"]);
    assert_eq!(outcome.lines().len(), 1, "{outcome:?}");
    outcome.failed(1, "no-space", "cannot put large: ");
}

#[test]
fn a_get_onto_a_full_disk_leaves_no_part_of_a_file() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "1m") else { return };
    let id = scene.put(&noise(3, 2_000_000));
    scene.run(&["get", &id, "-o", "disk/out"]).failed(1, "no-space", "cannot write disk/out: no space left");
    assert_eq!(std::fs::read_dir(scene.path("disk")).unwrap().count(), 0);
    scene.file("disk/out", b"before");
    scene.run(&["get", &id, "-o", "disk/out"]).failed(1, "no-space", "no space left");
    assert_eq!(std::fs::read(scene.path("disk/out")).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(scene.path("disk")).unwrap().count(), 1);
}

/// Devices of the test's own: a faulty program that runs as root would replace those of the machine.
#[test]
fn devices_are_written_straight() {
    let scene = Scene::new();
    let Some(_mount) = Mount::small(scene.path("disk"), "1m") else { return };
    for (name, minor) in [("null", "3"), ("full", "7")] {
        let place = scene.path("disk").join(name);
        let made = Command::new("mknod").arg(&place).args(["c", "1", minor]).status().unwrap();
        assert!(made.success(), "this test must make devices: see GRAVITON_TEST_NO_MOUNT");
    }
    let id = scene.put(&noise(5, 2_000_000));
    scene.run(&["get", &id, "-o", "disk/null"]).succeeded();
    scene.run(&["get", &id, "-o", "disk/full"]).failed(
        1,
        "no-space",
        "cannot write disk/full: no space left",
    );
    for name in ["disk/null", "disk/full"] {
        assert!(scene.path(name).metadata().unwrap().file_type().is_char_device());
    }
    assert_eq!(std::fs::read_dir(scene.path("disk")).unwrap().count(), 2);
}

#[test]
fn a_store_on_a_read_only_disk_can_be_read() {
    let scene = Scene::new();
    let content = noise(4, 1_000_000);
    let id = scene.put(&content);
    scene.file("file", b"x");
    let store = scene.path(".graviton");
    let Some(_mount) = Mount::new(store.clone(), &["--bind", store.to_str().unwrap()]) else { return };
    let remount = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&store).status();
    assert!(remount.unwrap().success());
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
    for arguments in [&["stat", &id][..], &["ls"], &["manifest", &id], &["stats"]] {
        assert!(!scene.run(arguments).succeeded().stdout.is_empty());
    }
    scene.run(&["verify", "--deep"]).succeeded();
    scene.run(&["backup", "kept"]).succeeded();
    let changing = [&["put", "file"][..], &["rm", &id], &["restore", &id], &["gc"], &["verify", "--adopt"]];
    for arguments in changing.iter().chain(&[&["repair", "--from", ".graviton"][..]]) {
        let outcome = scene.run(arguments);
        outcome.failed(1, "forbidden", ".graviton/");
        assert!(outcome.stdout.is_empty() || arguments[0] == "verify", "{arguments:?}");
    }
}

/// A user who may only read can find damage; nothing is marked.
#[test]
fn damage_on_a_read_only_disk_is_found() {
    let scene = Scene::new();
    let id = scene.put(&noise(8, 1_000_000));
    crate::scene::damage(&scene.block(&id, 1));
    std::fs::remove_file(scene.block(&id, 0)).unwrap();
    let before = scene.snapshot(".graviton");
    let store = scene.path(".graviton");
    let Some(_mount) = Mount::new(store.clone(), &["--bind", store.to_str().unwrap()]) else { return };
    let remount = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&store).status();
    assert!(remount.unwrap().success());
    let outcome = scene.run(&["verify", "--deep", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (4, ""), "{}", outcome.text());
    let kinds: Vec<String> =
        outcome.json().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["missing", "corrupt", "summary"]);
    assert!(scene.snapshot(".graviton") == before);
}

#[test]
fn a_collection_that_cannot_delete_anything_says_why_in_its_summary_too() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    scene.run(&["rm", &id]).succeeded();
    // A file with a mount over it cannot be moved.
    let block = scene.blocks().remove(0);
    let bind = ["--bind", block.to_str().unwrap()];
    let Some(mount) = Mount::new(block.clone(), &bind) else { return };
    let gc = ["gc", "--grace", "0"];
    let text = scene.run(&gc);
    text.failed(1, "io", "cannot move");
    assert_eq!(text.lines().len(), 1, "{}", text.text());
    let json = scene.run(&["gc", "--grace", "0", "--json"]);
    let summary = json.json().remove(0);
    assert!(summary["failure"].as_str().unwrap().contains("cannot move"), "{summary}");
    drop(mount);
    assert!(scene.run(&gc).succeeded().text().contains("1 block, 7 B"));
}
