//! Writes `tests/fixtures/store-<version>/`: a small store in the format of this version, which every later
//! version must open and read.
//!
//! Run `cargo run -p graviton-tools --bin fixture` once for each released version. A released fixture is
//! never written again.

use std::io::Write;
use std::path::Path;

use graviton_core::{BlobId, Config};
use graviton_tools::recipe::Recipe;
use serde_json::json;

/// Both algorithms, all kinds of chunkers; the empty blob, one block, several, a shared beginning, the same
/// content under both algorithms, and a put on the long path.
const BLOBS: [(&str, &str, &str); 10] = [
    ("blake3", "fastcdc:1024:4096:16384", "zeros:0"),
    ("blake3", "fastcdc:1024:4096:16384", "xof:fixture:1"),
    ("blake3", "fastcdc:1024:4096:16384", "xof:fixture:20000"),
    ("blake3", "fastcdc:1024:4096:16384", "xof:fixture:18000+lines:fixture:4000"),
    ("blake3", "fixed:500", "lines:long:40000"),
    ("blake3", "delimiter:0a:200", "lines:fixture:1500"),
    ("sha256", "fastcdc:1024:4096:16384", "zeros:0"),
    ("sha256", "fastcdc:1024:4096:16384", "xof:fixture:20000"),
    ("sha256", "fixed:1000", "repeat:fixture:1000:12345"),
    ("sha256", "fixed:16777216", "lines:fixture:1500"),
];

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let version: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').take(2).collect();
    let name = format!("store-{}", version.join("."));
    let target = fixtures.join(&name);
    assert!(!target.exists(), "{} is there already, and is to stay as it is", target.display());

    // Written in another directory, so that the location recorded in the store is never that of the fixture.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let root = elsewhere.path().join("store");
    let mut blobs = Vec::new();
    for (algo, chunker, content) in BLOBS {
        let config = Config::for_directory(&root).set("GRAVITON_HASH", algo).expect("an algorithm");
        let store = config.set("GRAVITON_CHUNKER", chunker).expect("a chunker").open().expect("a store");
        let bytes = content.parse::<Recipe>().expect("a recipe").bytes();
        let put = store.put(&bytes[..]).expect("it is put");
        // An abandoned put, as stores have them.
        store.writer().expect("a writer").write_all(b"given up").expect("it is written");
        blobs.push(json!({
            "id": BlobId::of(put.id.algo(), &bytes).to_string(),
            "content": content,
            "chunker": chunker,
            "blocks": put.blocks,
        }));
        // This also empties the write-ahead log.
        store.close();
    }
    copy(&root, &target);
    let about = "The blobs of the store beside this; content as tests/vectors/chunks.json says.";
    let text = serde_json::to_string_pretty(&json!({ "about": about, "blobs": blobs })).expect("it prints");
    std::fs::write(fixtures.join(format!("{name}.json")), text + "\n").expect("the list is written");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        // 4 MiB of zeros.
        if entry.file_name() == "reserve" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}
