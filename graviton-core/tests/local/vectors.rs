//! The committed vectors (`tests/vectors/`), which every language reads.

use graviton_core::testing::Recipe;
use graviton_core::{Algo, BlobId, BlockKey, ChunkerSpec, Code, chunker::cut_all};
use serde_json::Value;

fn vectors(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn content_is_cut_as_it_always_was() {
    let vectors = vectors("chunks.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 80);
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let what = format!("{} cut by {}", text("content"), text("chunker"));
        let bytes = text("content").parse::<Recipe>().unwrap().bytes();
        for algo in Algo::ALL {
            assert_eq!(BlobId::of(algo, &bytes).to_string(), text(algo.name()), "{what}");
        }
        let spec: ChunkerSpec = text("chunker").parse().unwrap();
        let blocks: Vec<String> =
            cut_all(&spec, &bytes).into_iter().map(|(size, digest)| format!("{digest}-{size}")).collect();
        if case["blocks"].is_array() {
            assert_eq!(blocks, texts(&case["blocks"]), "{what}");
        }
        assert_eq!(blocks.len() as u64, case["count"].as_u64().unwrap(), "{what}");
        let list: String = blocks.iter().map(String::as_str).flat_map(|block| [block, "\n"]).collect();
        assert_eq!(Algo::Blake3.digest(list.as_bytes()).to_string(), text("list"), "{what}");
    }
}

#[test]
fn ids_and_keys_are_read_as_strictly_as_ever() {
    let vectors = vectors("keys.json");
    for valid in texts(&vectors["valid"]) {
        let id: BlobId = valid.parse().unwrap();
        assert_eq!(id.to_string(), valid);
        let is_block = (1..=16_777_216).contains(&id.size());
        assert_eq!(valid.parse::<BlockKey>().is_ok(), is_block, "{valid}");
    }
    for (alias, id) in vectors["aliases"].as_object().unwrap() {
        assert_eq!(alias.parse::<BlobId>().unwrap().to_string(), id.as_str().unwrap());
        assert_eq!(alias.parse::<BlockKey>().unwrap().to_string(), id.as_str().unwrap());
    }
    let invalid = texts(&vectors["invalid"]);
    assert!(invalid.len() > 30);
    for invalid in invalid {
        assert_eq!(invalid.parse::<BlobId>().unwrap_err().code(), Code::InvalidId, "{invalid:?}");
        assert_eq!(invalid.parse::<BlockKey>().unwrap_err().code(), Code::InvalidId, "{invalid:?}");
    }
    let blocks = vectors["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let text = |name: &str| block[name].as_str().unwrap();
        let key: BlockKey = text("key").parse().unwrap();
        assert_eq!(BlockKey::of(key.algo(), text("content").as_bytes()).unwrap(), key);
        assert_eq!(key.name(), text("name"));
        assert_eq!(format!("{}/{}", key.algo(), key.name()), text("path"));
        assert_eq!(BlockKey::from_name(key.algo(), text("name")).unwrap(), key);
    }
}
