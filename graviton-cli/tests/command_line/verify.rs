//! `verify`: damage is found, listed with the affected blobs, and repaired by the next put.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::delete::absent;
use crate::scene::{PATIENCE, Scene, damage, finish, noise, signal};

/// The key of a block by its file.
fn key(block: &std::path::Path) -> String {
    let name = block.file_name().unwrap().to_str().unwrap();
    format!("blake3:{}", name.replace('-', ":"))
}

#[test]
fn a_store_without_damage_is_clean() {
    let scene = Scene::new();
    scene.put(&noise(1, 3_000_000));
    scene.put(b"");
    let blocks = scene.blocks().len();
    let text = scene.run(&["verify"]).succeeded();
    assert_eq!(text.lines().len(), 1);
    assert!(text.text().starts_with(&format!("verified 2 blobs, {blocks} blocks in ")), "{}", text.text());
    assert!(text.text().ends_with(": no damage\n"), "{}", text.text());
    let text = scene.run(&["verify", "--deep"]).succeeded();
    let expected = format!("verified every byte of 2 blobs, {blocks} blocks, 2.86 MiB in ");
    assert!(text.text().starts_with(&expected), "{}", text.text());
    let outcome = scene.run(&["verify", "--deep", "--json"]).succeeded();
    let mut summary = outcome.json().remove(0);
    summary["seconds"] = json!(0);
    let expected = json!({
        "kind": "summary", "blobs": 2, "blocks": blocks, "bytes": 3_000_000, "missing": 0, "corrupt": 0,
        "broken_manifests": 0, "database_problems": 0, "unreferenced": 0, "unreferenced_bytes": 0,
        "rebuilt": 0, "rebuilt_bytes": 0, "unusable": 0,
        "clean": true, "complete": true, "cursor": null, "seconds": 0,
    });
    assert_eq!((outcome.lines().len(), summary), (1, expected));
}

#[test]
fn every_kind_of_damage_to_a_block_is_found_and_healed_by_a_put() {
    let scene = Scene::new();
    let shared = noise(2, 2_000_000);
    let contents = [[&shared[..], b"one"].concat(), [&shared[..], b"two"].concat(), noise(3, 1_000_000)];
    let ids: Vec<String> = contents.iter().map(|content| scene.put(content)).collect();
    // A flipped byte in a block that two blobs share, and a short and a missing file in the third blob.
    let (flipped, short, gone) = (scene.block(&ids[0], 1), scene.block(&ids[2], 0), scene.block(&ids[2], 1));
    damage(&flipped);
    let length = short.metadata().unwrap().len() / 2;
    std::fs::File::options().write(true).open(&short).unwrap().set_len(length).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let (flipped, short, gone) = (key(&flipped), key(&short), key(&gone));

    // The lengths alone do not show the flipped byte.
    let outcome = scene.run(&["verify"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (4, ""));
    let in_third = format!("  in blob {}", ids[2]);
    let expected = [
        format!("corrupt {short} (it has {length} bytes)"),
        in_third.clone(),
        format!("missing {gone}"),
        in_third,
    ];
    assert_eq!(outcome.lines()[..4], expected);
    assert!(outcome.lines()[4].ends_with(": 1 missing block, 1 corrupt block"), "{}", outcome.text());

    let outcome = scene.run(&["verify", "--deep"]);
    let lines = outcome.lines();
    assert_eq!((outcome.code, lines.len()), (4, 8), "{outcome:?}");
    assert_eq!(lines[0], format!("corrupt {flipped}"));
    let mut both = [format!("  in blob {}", ids[0]), format!("  in blob {}", ids[1])];
    both.sort();
    assert_eq!(lines[1..3], both);
    assert!(lines[7].ends_with(": 1 missing block, 2 corrupt blocks"), "{}", lines[7]);

    let outcome = scene.run(&["verify", "--deep", "--json"]);
    let found = outcome.json();
    assert_eq!((outcome.code, found.len()), (4, 4));
    assert_eq!((&found[0]["kind"], &found[0]["key"]), (&json!("corrupt"), &json!(flipped)));
    assert_eq!(found[0]["blobs"].as_array().unwrap().len(), 2);
    assert_eq!(found[1], json!({"kind": "corrupt", "key": short, "length": length, "blobs": [ids[2]]}));
    assert_eq!(found[2], json!({"kind": "missing", "key": gone, "length": null, "blobs": [ids[2]]}));
    assert_eq!((&found[3]["clean"], &found[3]["corrupt"]), (&json!(false), &json!(2)));

    // Only the given blob is verified.
    scene.run(&["verify", &ids[0]]).succeeded();
    assert_eq!(scene.run(&["verify", "--deep", &ids[0]]).code, 4);
    assert_eq!(scene.run(&["verify", &ids[0], &ids[2]]).code, 4);

    scene.run(&["get", &ids[2], "-o", "out"]).failed(4, "corrupt-block", &short);
    for content in &contents {
        scene.put(content);
    }
    scene.run(&["verify", "--deep"]).succeeded();
    for (id, content) in ids.iter().zip(&contents) {
        assert!(scene.run(&["get", id]).succeeded().stdout == *content);
    }
}

#[test]
fn what_no_blob_needs_is_no_damage_and_goes_when_it_is_adopted() {
    let scene = Scene::new();
    scene.put(b"content");
    let other = Scene::new();
    other.put(&noise(4, 10_000));
    let stray = other.blocks().remove(0);
    let place = scene.path(".graviton/cas/blocks/blake3").join(stray.file_name().unwrap());
    std::fs::copy(&stray, &place).unwrap();
    scene.file(".graviton/cas/blocks/blake3/README", b"not ours");
    let outcome = scene.run(&["verify"]).succeeded();
    assert_eq!(outcome.lines()[0], format!("unreferenced {}", key(&place)));
    assert!(outcome.lines()[2].starts_with("1 block (9.77 KiB) that no blob needs"), "{}", outcome.text());
    let found = scene.run(&["verify", "--json"]).succeeded().json();
    assert_eq!(found[0], json!({"kind": "unreferenced", "key": key(&place), "length": 10_000}));
    assert_eq!(found[1]["unreferenced_bytes"], 10_000);
    // It is deleted only after `--adopt`.
    scene.run(&["gc", "--grace", "0"]).succeeded();
    assert!(place.exists());
    scene.run(&["verify", "--adopt"]).succeeded();
    assert!(place.exists());
    scene.run(&["gc"]).succeeded();
    assert!(!place.exists() && scene.path(".graviton/cas/blocks/blake3/README").exists());
    assert_eq!(scene.run(&["verify"]).succeeded().lines().len(), 1);
}

/// The block of this content is in a pack that the database does not know, and not at the place in its row.
fn restored(scene: &Scene, content: &[u8]) -> String {
    let database = scene.path(".graviton/manifests.db");
    let packed = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["--set", "GRAVITON_BLOCK_LAYOUT=packs"], arguments].concat();
        scene.feed(&arguments, input).succeeded()
    };
    let id = packed(&["put", "-"], content).lines()[0].clone();
    let backup = std::fs::read(&database).unwrap();
    let first = packs(scene).remove(0);
    std::fs::remove_file(&first).unwrap();
    packed(&["put", "-"], content);
    std::fs::write(&database, backup).unwrap();
    assert_eq!(packs(scene).len(), 1);
    id
}

fn packs(scene: &Scene) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(scene.path(".graviton/cas/blocks-packs")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn blocks_are_rebuilt_from_packs_that_a_restored_database_does_not_know() {
    let scene = Scene::new();
    let content = noise(7, 10_000);
    let id = restored(&scene, &content);
    let lost = scene.run(&["get", &id]);
    lost.failed(4, "missing-block", "is missing");
    assert!(lost.stderr.contains("graviton verify --rebuild"), "{}", lost.stderr);
    assert_eq!(scene.run(&["verify", "--rebuild", &id]).code, 2);
    // The advice works.
    let outcome = scene.run(&["verify", "--rebuild"]).succeeded();
    assert!(outcome.text().contains("rebuilt 1 block (9.77 KiB) from packs"), "{}", outcome.text());
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
    let again = scene.run(&["verify", "--rebuild", "--adopt", "--json"]).succeeded().json();
    assert_eq!((&again[0]["kind"], &again[1]["rebuilt"]), (&json!("pack"), &json!(0)));
    scene.run(&["gc", "--grace", "0"]).succeeded();
    assert_eq!(scene.run(&["verify", "--json"]).succeeded().json()[0]["unreferenced"], 0);
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
}

#[test]
fn records_that_cannot_be_used_are_told() {
    let scene = Scene::new();
    restored(&scene, &noise(8, 10_000));
    let pack = packs(&scene).remove(0);
    let bytes = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, &bytes[..9_000]).unwrap();
    let name = pack.file_stem().unwrap().to_str().unwrap();
    let outcome = scene.run(&["verify", "--rebuild"]);
    let line = format!("unusable record at 64 of pack {name} (of ");
    assert!(outcome.lines().iter().any(|found| found.starts_with(&line)), "{}", outcome.text());
    let found = scene.run(&["verify", "--rebuild", "--json"]).json();
    let record = found.iter().find(|found| found["kind"] == "record").unwrap();
    assert_eq!((&record["name"], &record["offset"]), (&json!(name), &json!(64)));
    assert!(record["why"].as_str().unwrap().starts_with("the pack ends "), "{record}");
    assert_eq!(found.last().unwrap()["unusable"], 1);
}

#[test]
fn broken_manifests_and_a_damaged_database_are_damage() {
    let scene = Scene::new();
    let id = scene.put(&noise(5, 3_000_000));
    scene.put(b"intact");
    let original = std::fs::read(scene.path(".graviton/manifests.db")).unwrap();
    scene.python("DELETE FROM blob_block WHERE block_offset = 0 AND blob_id = 1");
    let outcome = scene.run(&["verify"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(
        outcome.lines()[0].starts_with(&format!("manifest {id}: an entry starts at ")),
        "{}",
        outcome.text()
    );
    assert!(outcome.lines()[1].ends_with(": 1 broken manifest"), "{}", outcome.text());
    let found = scene.run(&["verify", "--json", &id]);
    assert_eq!((found.code, &found.json()[0]["kind"]), (4, &json!("manifest")));

    // A reference to a missing row.
    std::fs::write(scene.path(".graviton/manifests.db"), &original).unwrap();
    scene.python("DELETE FROM data_block WHERE id = 1");
    let outcome = scene.run(&["verify", "--json"]);
    assert_eq!((outcome.code, &outcome.json()[0]["kind"]), (4, &json!("database")), "{outcome:?}");

    // Whichever page of the file is overwritten, verify reports damage or the page does not matter.
    let pages = original.len() / 4096;
    let (mut damaged, mut both) = (0, 0);
    for page in 1..pages {
        let mut bytes = original.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0x5a);
        std::fs::write(scene.path(".graviton/manifests.db"), bytes).unwrap();
        let outcome = scene.run(&["verify"]);
        assert!(matches!(outcome.code, 0 | 4), "page {page}: {outcome:?}");
        damaged += usize::from(outcome.code == 4);
        let found = outcome.text().contains("database: ");
        let stopped = outcome.stderr.starts_with("error[corrupt-database]");
        assert_eq!(found || stopped, outcome.code == 4, "page {page}: {outcome:?}");
        // Findings from before the failure are printed, even if nothing else was verified.
        both += usize::from(found && stopped && !outcome.text().contains("verified "));
    }
    assert!(damaged > pages / 2 && both > 0, "{damaged} and {both} of {pages}");
    std::fs::write(scene.path(".graviton/manifests.db"), original).unwrap();
    scene.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn blobs_that_are_not_there_are_not_found_and_the_others_are_verified() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    let outcome = scene.run(&["verify", &absent(), &id]);
    outcome.failed(3, "not-found", &absent());
    assert!(outcome.text().starts_with("verified 1 blob, 1 block in "), "{}", outcome.text());
    let outcome = scene.run(&["verify", &absent()]);
    outcome.failed(3, "not-found", &absent());
    assert!(outcome.stdout.is_empty(), "it did not look at the store: {}", outcome.text());
    damage(&scene.block(&id, 0));
    assert_eq!(scene.run(&["verify", "--deep", &absent(), &id]).code, 4);
    scene.run(&["verify", "--from", "nowhere"]).failed(1, "invalid-argument", "\"nowhere\"");
}

#[test]
fn an_interrupted_verification_tells_where_to_go_on() {
    let scene = Scene::new();
    scene.file("file", &noise(6, 400_000));
    let put = scene.run(&["--set", "GRAVITON_CHUNKER=fixed:1000", "put", "file"]).succeeded();
    let id = put.lines().remove(0);
    damage(&scene.block(&id, 2));
    damage(&scene.block(&id, 398));
    for json in [false, true] {
        let mut arguments = vec!["verify", "--deep", "--rate", "20kB/s"];
        arguments.extend(json.then_some("--json"));
        let mut child = scene.start(&arguments);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A finding is printed as soon as it is made.
        let first = lines.next().unwrap().unwrap();
        assert!(first.contains("corrupt"), "{first}");
        let started = Instant::now();
        signal(&child, Signal::INT);
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        let outcome = finish(child);
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        let last = rest.last().unwrap();
        let cursor = if json {
            let summary: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!((&summary["complete"], &summary["corrupt"]), (&json!(false), &json!(1)), "{summary}");
            summary["cursor"].as_str().unwrap().to_owned()
        } else {
            assert!(rest[rest.len() - 2].ends_with(": 1 corrupt block"), "{rest:?}");
            last.strip_prefix("cursor ").unwrap().to_owned()
        };
        outcome.failed(130, "cancelled", "interrupted");
        assert!(outcome.stderr.contains(&format!("--from {cursor}")), "{}", outcome.stderr);
        let rest = scene.run(&["verify", "--deep", "--json", "--from", &cursor]);
        let found = rest.json();
        assert_eq!((rest.code, found.len()), (4, 2), "only the second one lies behind: {}", rest.text());
        assert_eq!(found[1]["corrupt"], 1);
    }
}

/// The advice of the message works.
#[test]
fn blocks_whose_id_is_gone_are_used_again_when_they_are_adopted() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    std::fs::remove_file(scene.path(".graviton/cas/blocks/store-id")).unwrap();
    let refused = scene.run(&["get", &id]);
    refused.failed(1, "config", "store-id");
    assert!(refused.stderr.contains("graviton verify --adopt"), "{}", refused.stderr);
    assert_eq!(scene.run(&["verify"]).code, 1);
    scene.run(&["verify", "--adopt"]).succeeded();
    assert!(scene.run(&["get", &id]).succeeded().stdout == b"content");
}

/// The advice of the message and the documentation works.
#[test]
fn a_backup_that_was_put_back_takes_over() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    scene.run(&["backup", "backup.db"]).succeeded();
    let second = scene.put(b"put since");
    std::fs::copy(scene.path("backup.db"), scene.path(".graviton/manifests.db")).unwrap();
    for refused in
        [&["put", "backup.db"][..], &["rm", &id], &["restore", &id], &["gc"], &["verify", "--adopt"]]
    {
        let refused = scene.run(refused);
        refused.failed(1, "config", "this database is a backup");
        assert!(refused.stderr.contains("graviton verify --take-over"), "{}", refused.stderr);
    }
    assert!(scene.run(&["get", &id]).succeeded().stdout == b"content");
    scene.run(&["verify"]).succeeded();
    scene.run(&["verify", "--take-over"]).succeeded();
    scene.run(&["get", &second]).failed(3, "not-found", "");
    scene.run(&["put", "backup.db"]).succeeded();
    scene.run(&["gc"]).succeeded();
}
