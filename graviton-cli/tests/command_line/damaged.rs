//! Damaged blocks: after a `get` has found one, the next `put` of the content writes it again. The advice in
//! the error works too.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::left_out::leave_out;
use crate::scene::{Scene, damage, noise};

/// The only pack file.
fn pack(scene: &Scene) -> PathBuf {
    let packs = std::fs::read_dir(scene.path(".graviton/cas/blocks-packs")).unwrap();
    packs.map(|entry| entry.unwrap().path()).next().unwrap()
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn shorten(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    remove(path);
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

const LOSSES: [fn(&Path); 3] = [damage, remove, shorten];

/// Runs `then` for each layout and each kind of damage, and checks that the blob is whole after it.
fn for_each_loss(then: impl Fn(&Scene, &str)) {
    for layout in ["files", "packs"] {
        for (kind, lose) in LOSSES.into_iter().enumerate() {
            let scene = Scene::new();
            let content = noise(60, 3_000_000);
            scene.file("content", &content);
            let put =
                ["--set", &format!("GRAVITON_BLOCK_LAYOUT={layout}"), "put", "content"].map(str::to_owned);
            let id = scene.run(&put).succeeded().lines().remove(0);
            lose(&if layout == "packs" { pack(&scene) } else { scene.block(&id, 1) });
            then(&scene, &id);
            assert!(scene.run(&["get", &id]).succeeded().stdout == content, "{layout} {kind}");
        }
    }
}

#[test]
fn a_put_writes_what_a_get_has_found_damaged() {
    for_each_loss(|scene, id| {
        assert_eq!(scene.run(&["get", id, "-o", "out"]).code, 4);
        // A damaged pack has several such blocks, and a get ends at the first one.
        for _ in 0..20 {
            scene.run(&["put", "content"]).succeeded();
            if scene.run(&["get", id, "-o", "out"]).code == 0 {
                break;
            }
        }
    });
}

#[test]
fn what_the_error_of_a_damaged_block_advises_works() {
    for_each_loss(|scene, id| {
        let failed = scene.run(&["get", id, "-o", "out"]);
        let advice = failed.stderr.lines().last().unwrap();
        let deep = advice.contains("verify the store deeply, then put the same content again");
        assert!(deep || advice.contains("verify the store, then put the same content again"), "{advice}");
        let verified = scene.run(if deep { &["verify", "--deep"][..] } else { &["verify"] });
        assert_eq!(verified.code, 4, "{verified:?}");
        scene.run(&["put", "content"]).succeeded();
    });
}

#[test]
fn a_get_that_finds_damage_writes_nothing_where_it_may_not() {
    let scene = Scene::new();
    let id = scene.put(&noise(61, 3_000_000));
    scene.run(&["backup", "copy.db"]).succeeded();
    damage(&scene.block(&id, 1));
    let copy = ["--set", "GRAVITON_MANIFEST_URL=sqlite:copy.db", "get", &id];
    let before = (scene.snapshot(".graviton"), std::fs::read(scene.path("copy.db")).unwrap());
    let outcome = scene.run(&copy);
    assert!(outcome.code == 4 && outcome.stderr.starts_with("error[corrupt-block]"), "{outcome:?}");
    assert!(before.1 == std::fs::read(scene.path("copy.db")).unwrap());
    assert!(before.0 == scene.snapshot(".graviton"));
}

/// Deletes the objects of all blocks of the blob.
fn delete_objects(scene: &Scene, settings: &[String], id: &str, endpoint: &str, user: &str) {
    let manifest = scene.run(&[settings, &["manifest".into(), "--json".into(), id.into()]].concat()).json();
    for entry in manifest {
        let key = entry["key"].as_str().unwrap().strip_prefix("blake3:").unwrap().replace(':', "-");
        let url = format!("{endpoint}/graviton-test/{}/blake3/{key}", prefix(scene));
        let curl = ["-sf", "-X", "DELETE", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", user, &url];
        assert!(Command::new("curl").args(curl).status().unwrap().success(), "{url}");
    }
}

/// A prefix in the bucket that only this test uses.
fn prefix(scene: &Scene) -> String {
    let path = scene.path("damaged");
    let own = path.parent().and_then(Path::file_name).unwrap();
    format!("damaged{}", own.to_string_lossy())
}

#[test]
fn a_put_writes_objects_that_a_get_has_found_missing() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(endpoint), Some(user), Some(password)) = (
        variable("GRAVITON_TEST_S3"),
        variable("GRAVITON_TEST_S3_USER"),
        variable("GRAVITON_TEST_S3_PASSWORD"),
    ) else {
        return leave_out(
            "objects that are missing",
            "no servers run; start the tests through tests/servers",
        );
    };
    let scene = Scene::new();
    let content = noise(62, 3_000_000);
    scene.file("content", &content);
    let settings: Vec<String> = [
        "GRAVITON_BLOB_BACKEND=minio".to_owned(),
        format!("QUASAR_MINIO_URL={endpoint}"),
        format!("MINIO_ROOT_USER={user}"),
        format!("MINIO_ROOT_PASSWORD={password}"),
        "GRAVITON_S3_BLOCK_BUCKET=graviton-test".to_owned(),
        format!("GRAVITON_S3_BLOCK_PREFIX={}", prefix(&scene)),
    ]
    .into_iter()
    .flat_map(|setting| ["--set".to_owned(), setting])
    .collect();
    let run = |arguments: &[&str]| {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        scene.run(&[settings.clone(), arguments].concat())
    };
    let id = run(&["put", "content"]).succeeded().lines().remove(0);
    delete_objects(&scene, &settings, &id, &endpoint, &format!("{user}:{password}"));
    run(&["get", &id, "-o", "out"]).failed(4, "missing-block", &id);
    let again = run(&["--json", "put", "content"]).succeeded().json().remove(0);
    assert!(again["fresh_blocks"].as_u64().unwrap() >= 1, "{again}");
    // A verification finds the others, as the error advises.
    assert_eq!(run(&["verify"]).code, 4);
    run(&["put", "content"]).succeeded();
    assert!(run(&["get", &id]).succeeded().stdout == content);
}
