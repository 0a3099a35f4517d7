//! `rm`, `restore` and `gc`: deletion, restoration, collection.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::scene::{Scene, finish, noise, signal, until};

/// The id of a blob that exists nowhere.
pub(crate) fn absent() -> String {
    format!("blake3:{}:5", "0".repeat(64))
}

fn field(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"))
}

/// Collects without a grace. Returns the summary.
fn collect(scene: &Scene) -> Value {
    scene.run(&["gc", "--grace", "0", "--json"]).succeeded().json().remove(0)
}

#[test]
fn what_is_removed_is_gone_until_it_is_restored() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    let removed = scene.run(&["rm", &id]).succeeded();
    assert_eq!(removed.lines(), [id.as_str()]);
    for command in ["get", "stat", "manifest", "rm"] {
        scene.run(&[command, &id]).failed(3, "not-found", &id);
    }
    scene.assert_blobs(0);
    let restored = scene.run(&["restore", &id]).succeeded();
    assert_eq!(restored.lines(), [id.as_str()]);
    assert_eq!(scene.run(&["get", &id]).succeeded().stdout, b"content");
    // A live blob stays live.
    scene.run(&["restore", &id]).succeeded();
    for (command, state) in [("rm", "deleted"), ("restore", "live")] {
        let outcome = scene.run(&[command, "--json", &id]).succeeded();
        assert_eq!(outcome.json(), [json!({"id": id, "state": state})]);
    }
}

#[test]
fn several_ids_are_seen_to_although_some_are_not_there() {
    let scene = Scene::new();
    let (first, second) = (scene.put(b"first"), scene.put(b"second"));
    let outcome = scene.run(&["rm", &first, &absent(), &second, &first]);
    assert_eq!((outcome.code, outcome.lines()), (3, vec![first.clone(), second.clone()]), "{outcome:?}");
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors.len(), 2, "{}", outcome.stderr);
    assert!(errors[0].contains(&absent()) && errors[1].contains(&first), "{errors:?}");
    let outcome = scene.run(&["restore", &first, &absent(), &second]);
    assert_eq!((outcome.code, outcome.lines()), (3, vec![first.clone(), second]), "{outcome:?}");
    scene.assert_blobs(2);
    // If one id is malformed, nothing is deleted.
    let outcome = scene.run(&["rm", &first, "blake3:no"]);
    outcome.failed(1, "invalid-id", "is not a blob id");
    scene.assert_blobs(2);
}

#[test]
fn a_reader_of_the_ids_that_goes_away_stops_no_deletion() {
    let scene = Scene::new();
    let (first, second) = (scene.put(b"first"), scene.put(b"second"));
    let mut child = scene.start(&["rm", &first, &second]);
    drop(child.stdout.take());
    finish(child).succeeded();
    scene.assert_blobs(0);
}

#[test]
fn gc_frees_what_was_deleted_and_nothing_else() {
    let scene = Scene::new();
    let shared = noise(1, 1_000_000);
    let (one, two) = ([&shared[..], &noise(2, 900_000)].concat(), [&shared[..], &noise(3, 900_000)].concat());
    let (first, second) = (scene.put(&one), scene.put(&two));
    let all = scene.blocks().len() as u64;
    scene.run(&["rm", &first]).succeeded();

    // During the grace, an hour by default, everything stays.
    let text = scene.run(&["gc"]).succeeded();
    assert!(text.text().starts_with("freed 0 blobs, 0 blocks, 0 B in "), "{}", text.text());
    scene.run(&["restore", &first]).succeeded();
    scene.run(&["rm", &first]).succeeded();
    let stats = scene.run(&["stats", "--json"]).succeeded().json().remove(0);
    assert_eq!((field(&stats, "dead_blobs"), field(&stats, "dead_bytes")), (1, 1_900_000));
    let reclaimable = field(&stats, "reclaimable_bytes");
    assert!((800_000..1_200_000).contains(&reclaimable), "{stats}");

    let before = scene.snapshot(".graviton/cas");
    let plan = scene.run(&["gc", "--grace", "0", "--dry-run"]).succeeded();
    assert_eq!(plan.lines().len(), 2, "{}", plan.text());
    assert_eq!(plan.lines()[0], format!("would delete {first}"));
    assert!(plan.lines()[1].starts_with("would free 1 blob, "), "{}", plan.text());
    let plan = scene.run(&["gc", "--grace", "0s", "--dry-run", "--json"]).succeeded().json();
    assert_eq!(plan[0], json!({"kind": "blob", "id": first}));
    assert_eq!((plan.len(), field(&plan[1], "bytes"), &plan[1]["dry_run"]), (2, reclaimable, &json!(true)));
    assert!(scene.snapshot(".graviton/cas") == before, "a plan changed something");
    let none = scene.run(&["gc", "--dry-run"]).succeeded();
    assert_eq!(none.lines(), ["would free 0 blobs, 0 blocks, 0 B"]);

    let text = scene.run(&["gc", "--grace", "0"]).succeeded();
    let lines = text.lines();
    let blocks = all - scene.blocks().len() as u64;
    assert!(lines[0].starts_with(&format!("freed 1 blob, {blocks} blocks, ")), "{}", text.text());
    assert!(lines[0].contains("KiB in ") && lines[0].ends_with(" s"), "{}", text.text());
    assert!(lines[1].ends_with("kept: still needed by other blobs"), "{}", text.text());
    assert_eq!(blocks, field(&plan[1], "blocks"));
    scene.run(&["restore", &first]).failed(3, "not-found", &first);
    assert!(scene.run(&["get", &second]).succeeded().stdout == two);
    scene.put(&one);
    scene.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn repack_moves_all_blocks_and_its_summary_has_these_fields() {
    let scene = Scene::new();
    let content = noise(5, 2_000_000);
    let id = scene.put(&content);
    let all = scene.blocks().len() as u64;
    let text = scene.run(&["repack", "--to", "packs"]).succeeded();
    assert!(text.lines()[0].starts_with(&format!("moved {all} blocks, 1.91 MiB in ")), "{}", text.text());
    assert_eq!((text.lines().len(), scene.blocks().len()), (1, 0), "{}", text.text());
    assert!(scene.run(&["get", &id]).succeeded().stdout == content);
    let again = scene.run(&["repack", "--to", "packs"]).succeeded();
    assert_eq!(again.lines()[1], format!("{all} blocks already there"));
    let mut summary = scene.run(&["repack", "--to=files", "--json"]).succeeded().json().remove(0);
    summary["seconds"] = json!(0);
    let expected = json!({
        "kind": "summary", "blocks": all, "bytes": 2_000_000, "present": 0, "damaged": 0, "skipped": 0,
        "remaining": 0, "leftovers": 0, "kept_failed": 0, "failure": "", "complete": true, "seconds": 0,
    });
    assert_eq!(summary, expected);
    scene.run(&["verify", "--deep"]).succeeded();
    std::fs::remove_file(&scene.blocks()[0]).unwrap();
    let outcome = scene.run(&["repack", "--to", "packs"]);
    assert!(outcome.code == 4 && outcome.lines()[1].contains("damaged"), "{outcome:?}");
    assert_eq!(scene.run(&["repack", "--to", "boxes"]).code, 2);
    assert_eq!(scene.run(&["repack"]).code, 2);
}

#[test]
fn the_summary_of_gc_has_these_fields() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    scene.run(&["rm", &id]).succeeded();
    let outcome = scene.run(&["gc", "--grace", "0", "--json"]).succeeded();
    let mut summary = outcome.json().remove(0);
    assert!(summary["seconds"].as_f64().unwrap() >= 0.0);
    summary["seconds"] = json!(0);
    let expected = json!({
        "kind": "summary", "dry_run": false, "blobs": 1, "blocks": 1, "bytes": 7, "abandoned_puts": 0,
        "kept_referenced": 0, "kept_doomed": 0, "kept_failed": 0, "failure": "", "leftovers": 0, "complete": true,
        "seconds": 0, "unreferenced": 0, "unreferenced_bytes": 0, "future_times": 0,
    });
    assert_eq!(summary, expected);
    assert!(outcome.text().starts_with("{\"kind\":\"summary\",\"dry_run\":false,\"blobs\":1,"));
}

#[test]
fn limits_end_a_collection_and_the_next_one_goes_on() {
    let scene = Scene::new();
    scene.file("file", &noise(4, 60_000));
    let put = scene.run(&["--set", "GRAVITON_CHUNKER=fixed:1000", "put", "file"]).succeeded();
    scene.run(&["rm", &put.lines()[0]]).succeeded();
    let limited = |options: &[&str]| -> u64 {
        let outcome = scene.run(&[&["gc", "--grace", "0", "--json"], options].concat()).succeeded();
        assert_eq!(outcome.json()[0]["complete"], false, "{options:?}");
        field(&outcome.json()[0], "blocks")
    };
    assert_eq!(limited(&["--max-blocks", "10"]), 10);
    assert_eq!(scene.blocks().len(), 50);
    // The byte limit is approximate: gc ends after the batch that reaches it.
    assert_eq!(limited(&["--max-bytes", "2kB", "--blocks-per-second", "1"]), 2);
    assert_eq!(limited(&["--max-seconds", "1", "--blocks-per-second", "5"]), 5);
    let text = scene.run(&["gc", "--grace", "0", "--max-blocks", "8"]).succeeded();
    assert_eq!(text.lines()[1], "stopped by a limit; the next gc continues from there");
    assert_eq!(field(&collect(&scene), "blocks"), 35);
    assert!(scene.blocks().is_empty());
}

#[test]
fn an_interrupted_collection_tells_what_it_did_and_the_next_one_goes_on() {
    let scene = Scene::new();
    scene.file("file", &noise(6, 100_000));
    for json in [false, true] {
        let put = scene.run(&["--set", "GRAVITON_CHUNKER=fixed:1000", "put", "file"]).succeeded();
        scene.run(&["rm", &put.lines()[0]]).succeeded();
        let mut arguments = vec!["gc", "--grace", "0", "--blocks-per-second", "10"];
        arguments.extend(json.then_some("--json"));
        let child = scene.start(&arguments);
        until("it has begun", || scene.blocks().len() < 100);
        signal(&child, Signal::INT);
        let outcome = finish(child);
        outcome.failed(130, "cancelled", "interrupted");
        let gone = 100 - scene.blocks().len();
        assert!((10..50).contains(&gone), "{gone}");
        if json {
            let summary = &outcome.json()[0];
            assert_eq!((field(summary, "blocks"), &summary["complete"]), (gone as u64, &json!(false)));
        } else {
            let expected = format!("freed 1 blob, {gone} blocks, ");
            assert!(outcome.text().starts_with(&expected) && outcome.lines().len() == 1, "{outcome:?}");
        }
        assert_eq!(field(&collect(&scene), "blocks"), 100 - gone as u64);
    }
}

#[test]
fn what_a_killed_put_left_goes_with_its_lease() {
    let scene = Scene::new();
    scene.put(b"before");
    let mut child = scene.start(&["put", "-"]);
    child.stdin.as_mut().unwrap().write_all(&noise(5, 40_000_000)).unwrap();
    until("blocks are written", || scene.blocks().len() > 1);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    // Its lease of one minute has not expired, so nobody knows that it is dead.
    assert_eq!(field(&collect(&scene), "abandoned_puts"), 0);
    scene.python("UPDATE writer SET expires_at = 0");
    let plan = scene.run(&["gc", "--dry-run"]).succeeded();
    assert_eq!(plan.lines()[0], "would delete 1 more, including leftovers of failed puts");
    let outcome = scene.run(&["gc"]).succeeded();
    assert!(outcome.lines().contains(&"1 put abandoned: its process is gone".to_owned()), "{outcome:?}");
    scene.run(&["gc"]).succeeded();
    assert_eq!(scene.blocks().len(), 1);
}

#[test]
fn settings_decide_the_grace_and_the_option_goes_before() {
    let scene = Scene::new();
    let id = scene.put(b"content");
    scene.run(&["rm", &id]).succeeded();
    let outcome = scene.run(&["gc", "--set", "GRAVITON_GC_GRACE=0", "--grace", "1d", "--json"]).succeeded();
    assert_eq!(field(&outcome.json()[0], "blobs"), 0);
    let outcome = scene.run(&["gc", "--set", "GRAVITON_GC_GRACE=0", "--json"]).succeeded();
    assert_eq!(field(&outcome.json()[0], "blobs"), 1);
}

/// A collection needs tables that the first version did not have.
#[test]
fn a_store_of_an_older_version_is_brought_up_to_date() {
    let scene = Scene::new();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/store-0.1");
    assert!(scene.through("cp", &["-r", fixture, ".graviton"]).status().unwrap().success());
    let version = || {
        let program = "import sqlite3; c = sqlite3.connect('.graviton/manifests.db'); \
                       print(c.execute('SELECT schema_version FROM store').fetchone()[0])";
        String::from_utf8(scene.through("python3", &["-c", program]).output().unwrap().stdout).unwrap()
    };
    let id =
        scene.run(&["ls", "--json", "--limit", "1"]).succeeded().json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(version(), "1\n");
    scene.run(&["rm", &id]).succeeded();
    assert_eq!(version(), "3\n");
    assert_eq!(field(&collect(&scene), "blobs"), 1);
    scene.run(&["verify", "--deep"]).succeeded();
}

#[test]
fn gc_names_the_command_that_frees_what_killed_puts_left() {
    let scene = Scene::new();
    scene.put(b"content");
    let stray = scene.path(&format!(".graviton/cas/blocks/blake3/{:064x}-3", 1));
    std::fs::write(&stray, "abc").unwrap();
    let text = scene.run(&["gc"]).succeeded();
    assert_eq!(
        text.lines()[1],
        "1 file (3 B) that the database does not know: of running puts, or left by killed ones; \
         graviton verify --adopt hands them to the next gc"
    );
    scene.run(&["verify", "--adopt"]).succeeded();
    let text = scene.run(&["gc"]).succeeded();
    assert!(
        text.lines()[0].starts_with("freed 0 blobs, 1 block, 3 B") && text.lines().len() == 1,
        "{text:?}"
    );
    assert!(!stray.exists());
}
