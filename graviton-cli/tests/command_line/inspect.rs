//! `stat`, `ls`, `manifest`, `stats`: for people and as JSON, and without writing anything.

use serde_json::Value;

use crate::scene::{Scene, finish, noise};

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn names_in_order(text: &str, names: &[&str]) {
    let places: Vec<Option<usize>> = names.iter().map(|name| text.find(&format!("\"{name}\":"))).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
}

#[test]
fn stat_tells_what_is_known() {
    let scene = Scene::new();
    let id = scene.put(&noise(1, 2_000_000));
    let text = scene.run(&["stat", &id]).succeeded();
    for word in [&id, "2000000", "1.91 MiB", "fastcdc:65536:262144:1048576", "blocks", "created"] {
        assert!(text.text().contains(word), "{word}: {}", text.text());
    }
    for arguments in [["stat", "--json", &id], ["--json", "stat", &id]] {
        let outcome = scene.run(&arguments).succeeded();
        let stat = &outcome.json()[0];
        assert_eq!(keys(stat), ["blocks", "chunker", "created_at", "id", "size"]);
        names_in_order(outcome.text(), &["id", "size", "blocks", "chunker", "created_at"]);
        assert_eq!(stat["id"], id);
        assert_eq!(stat["size"], 2_000_000);
        assert_eq!(stat["chunker"], "fastcdc:65536:262144:1048576");
        let blocks = scene.run(&["manifest", &id]).lines().len();
        assert_eq!(stat["blocks"], blocks);
        let created = stat["created_at"].as_str().unwrap().to_owned();
        let date = scene.through("date", &["+%s", "-d", &created]).output().unwrap();
        let seconds: i64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        assert!((now - 60..=now).contains(&seconds) && created.ends_with('Z'), "{created}");
    }
}

#[test]
fn ls_goes_through_all_pages_in_order() {
    let scene = Scene::new();
    let names: Vec<String> = (0..1203).map(|number| number.to_string()).collect();
    for name in &names {
        scene.file(name, name.as_bytes());
    }
    let arguments: Vec<&str> = ["put"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let mut ids = scene.run(&arguments).succeeded().lines();
    ids.sort();
    let listed = |arguments: &[&str]| -> Vec<String> {
        let outcome = scene.run(arguments).succeeded();
        outcome.json().iter().map(|stat| stat["id"].as_str().unwrap().to_owned()).collect()
    };
    assert!(listed(&["ls", "--json"]) == ids);
    assert!(listed(&["--json", "ls", "--limit", "1001"]) == ids[..1001]);
    assert!(listed(&["--json", "ls", "--limit", "0"]).is_empty());
    assert!(listed(&["ls", "--json", "--after", &ids[10], "--limit", "5"]) == ids[11..16]);
    assert!(listed(&["ls", "--json", "--after", &ids[1202]]).is_empty());
    let first = &scene.run(&["ls", "--json", "--limit", "1"]).json()[0];
    assert_eq!(keys(first), ["blocks", "chunker", "created_at", "id", "size"]);
    assert_eq!(first, &scene.run(&["stat", "--json", &ids[0]]).json()[0]);
    let lines = scene.run(&["ls"]).succeeded().lines();
    let firsts: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(firsts == ids);
    // A reader that closes the pipe is no error. The list does not fit into a pipe.
    let mut child = scene.start(&["ls"]);
    drop(child.stdout.take());
    finish(child).succeeded();
}

#[test]
fn manifest_lists_the_blocks_in_order() {
    let scene = Scene::new();
    scene.file("file", &noise(2, 250_000));
    let put = scene.run(&["--set", "GRAVITON_CHUNKER=fixed:100", "put", "file"]).succeeded();
    let id = &put.lines()[0];
    let outcome = scene.run(&["manifest", "--json", id]).succeeded();
    let entries = outcome.json();
    assert_eq!(entries.len(), 2500);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(keys(entry), ["key", "offset", "size"]);
        assert_eq!(entry["offset"], number * 100);
        assert_eq!(entry["size"], 100);
        let key = entry["key"].as_str().unwrap();
        assert!(key.starts_with("blake3:") && key.ends_with(":100") && key.len() == 75, "{key}");
    }
    names_in_order(&outcome.lines()[0], &["offset", "size", "key"]);
    let lines = scene.run(&["manifest", id]).succeeded().lines();
    assert_eq!(lines.len(), 2500);
    let words: Vec<&str> = lines[2499].split_whitespace().collect();
    assert_eq!(words, ["249900", "100", entries[2499]["key"].as_str().unwrap()]);
    let empty = scene.put(b"");
    assert!(scene.run(&["manifest", &empty]).succeeded().stdout.is_empty());
}

#[test]
fn stats_add_up() {
    let scene = Scene::new();
    let content = noise(3, 100_000);
    let (first, second) = (scene.put(&content), scene.put(&[&content[..], b"x"].concat()));
    let outcome = scene.run(&["stats", "--json"]).succeeded();
    names_in_order(outcome.text(), &["blobs", "logical_bytes", "blocks", "stored_bytes", "dedup_ratio"]);
    let stats = &outcome.json()[0];
    names_in_order(
        outcome.text(),
        &["dedup_ratio", "dead_blobs", "dead_bytes", "reclaimable_bytes", "references", "directory_share"],
    );
    names_in_order(
        outcome.text(),
        &[
            "packs",
            "pack_live_bytes",
            "pack_dead_bytes",
            "pack_punched_bytes",
            "pack_pending_bytes",
            "pack_open_bytes",
        ],
    );
    assert_eq!(keys(stats).len(), 18);
    let blocks = |id: &str| scene.run(&["manifest", id]).succeeded().lines().len();
    assert_eq!(stats["references"], blocks(&first) + blocks(&second));
    // A directory of ext4 has a limit; other filesystems have none.
    let share = stats["directory_share"].as_f64().unwrap();
    assert!((0.0..0.1).contains(&share), "{share}");
    assert_eq!((&stats["dead_blobs"], &stats["reclaimable_bytes"]), (&0.into(), &0.into()));
    assert_eq!(stats["blobs"], 2);
    assert_eq!(stats["logical_bytes"], 200_001);
    assert_eq!(stats["blocks"], scene.blocks().len());
    let stored: u64 = scene.blocks().iter().map(|block| block.metadata().unwrap().len()).sum();
    assert_eq!(stats["stored_bytes"], stored);
    let ratio = stats["dedup_ratio"].as_f64().unwrap();
    assert!((ratio - 200_001.0 / stored as f64).abs() < 1e-9);
    let text = scene.run(&["stats"]).succeeded();
    assert!(text.text().contains("200001 (195.31 KiB)") && text.text().contains(&format!("{ratio:.2}")));
}

#[test]
fn reading_writes_nothing() {
    let scene = Scene::new();
    let id = scene.put(&noise(4, 1_000_000));
    let snapshot = || scene.snapshot(".graviton");
    let before = snapshot();
    let looking = [&["gc", "--dry-run"][..], &["verify"], &["verify", "--deep", &id]];
    let reading = [&["get", &id][..], &["stat", &id], &["ls"], &["manifest", &id], &["stats"]];
    for arguments in reading.iter().chain(&looking) {
        scene.run(arguments).succeeded();
        let after = snapshot();
        assert!(after == before, "{arguments:?}: {:?}", after.keys());
    }
}

#[test]
fn what_is_not_there_is_not_found_and_not_created() {
    let scene = Scene::new();
    let id = format!("blake3:{}:5", "0".repeat(64));
    let commands = [&["get", &id][..], &["stat", &id], &["manifest", &id]];
    let changing = [&["rm", &id][..], &["restore", &id], &["verify", &id]];
    let whole = [
        &["ls"][..],
        &["stats"],
        &["gc"],
        &["gc", "--dry-run"],
        &["verify"],
        &["backup", "kept"],
        &["upgrade"],
    ];
    for arguments in commands.iter().chain(&changing).chain(&whole) {
        scene.run(arguments).failed(3, "not-found", "there is no store");
    }
    assert!(!scene.path(".graviton").exists());
    scene.put(b"something");
    for arguments in commands.iter().chain(&changing) {
        scene.run(arguments).failed(3, "not-found", &format!("there is no blob {id}"));
    }
}
