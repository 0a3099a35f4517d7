//! Writes `tests/vectors/`, on which every language and every later version must agree.
//!
//! Run `cargo run -p graviton-tools --bin vectors`, and look at the difference: a changed line is a changed
//! format. Released boundaries and names never change.

use graviton_core::{Algo, BlobId, BlockKey, ChunkerSpec};
use graviton_tools::recipe::Recipe;
use serde_json::{Value, json};

/// Settings: the smallest and the defaults, an odd size, delimiters of one and of several bytes.
const CHUNKERS: [&str; 8] = [
    "fixed:1",
    "fixed:1000",
    "fixed:16777216",
    "fastcdc:64:256:1024",
    "fastcdc:1024:4096:16384",
    "fastcdc:65536:262144:1048576",
    "delimiter:0a:100",
    "delimiter:0a61:4096",
];

/// Contents: nothing, one byte, around the sizes above, random, text, and content without any boundary.
const CONTENTS: [&str; 14] = [
    "zeros:0",
    "xof:vector:1",
    "xof:vector:63",
    "xof:vector:64",
    "xof:vector:65",
    "xof:vector:1000",
    "xof:vector:1001",
    "lines:vector:1",
    "lines:vector:20000",
    "xof:vector:50001",
    "zeros:5000",
    "repeat:vector:777:30000",
    "xof:vector:2000000",
    "zeros:1000000+lines:vector:1500001",
];

/// If there are many blocks, their number and the digest of the list are enough.
const SHOWN: usize = 40;

fn main() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let write = |name: &str, value: &Value| {
        let text = serde_json::to_string_pretty(value).expect("values print") + "\n";
        std::fs::write(directory.join(name), text).expect("tests/vectors can be written");
    };
    write("chunks.json", &chunks());
    write("keys.json", &keys());
}

fn chunks() -> Value {
    let mut cases = Vec::new();
    for content in CONTENTS {
        let bytes = content.parse::<Recipe>().expect("a recipe").bytes();
        for chunker in CHUNKERS {
            // A million blocks of one byte add no information.
            if chunker == "fixed:1" && bytes.len() > 100 {
                continue;
            }
            let spec: ChunkerSpec = chunker.parse().expect("a chunker");
            let mut rest = &bytes[..];
            let mut blocks = Vec::new();
            let mut cutter = spec.chunker();
            while let Some(size) = cutter.cut(rest, true) {
                let (block, behind) = rest.split_at(size);
                blocks.push(format!("{}-{size}", Algo::Blake3.digest(block)));
                rest = behind;
            }
            let list = blocks.iter().map(String::as_str).flat_map(|block| [block, "\n"]).collect::<String>();
            let mut case = json!({
                "content": content,
                "chunker": chunker,
                "blake3": BlobId::of(Algo::Blake3, &bytes).to_string(),
                "sha256": BlobId::of(Algo::Sha256, &bytes).to_string(),
                "count": blocks.len(),
                "list": Algo::Blake3.digest(list.as_bytes()).to_string(),
            });
            if blocks.len() <= SHOWN {
                case["blocks"] = json!(blocks);
            }
            cases.push(case);
        }
    }
    json!({
        "about": [
            "content: xof:<seed>:<length> is the first <length> bytes of BLAKE3's extended output for the UTF-8 bytes of <seed> (printf <seed> | b3sum --length <length> --raw);",
            "lines:<seed>:<length> is those bytes, each below 8 made a line feed and each other one the letter 'a' + (byte mod 26);",
            "repeat:<seed>:<period>:<length> is the first <period> of those bytes again and again; zeros:<length>; + joins contents.",
            "blake3, sha256: the id of the content. blocks: <hex of the block's BLAKE3>-<size>, in order, where there are few.",
            "count: how many; list: the BLAKE3 of all those names, each followed by a line feed."
        ],
        "cases": cases,
    })
}

fn keys() -> Value {
    let bytes = b"hello, graviton";
    let sizes = |algo| -> Vec<String> {
        let digest = Algo::Blake3.digest(bytes);
        let id = |size| BlobId::new(algo, digest, size).expect("a size").to_string();
        [0, 1, 9, 10, 16_777_216, 16_777_217, 4_294_967_296, 9_223_372_036_854_775_807].map(id).into()
    };
    let valid: Vec<String> = Algo::ALL.into_iter().flat_map(sizes).collect();
    let hex = Algo::Blake3.digest(bytes).to_string();
    let wrong = [
        String::new(),
        "blake3".into(),
        format!("blake3:{hex}"),
        format!("{hex}:15"),
        format!(":{hex}:15"),
        format!("blake2:{hex}:15"),
        format!("BLAKE3:{hex}:15"),
        format!("SHA-256:{hex}:15"),
        format!("blake3:{}:15", hex.to_uppercase()),
        format!("blake3:{}:15", &hex[1..]),
        format!("blake3:{hex}0:15"),
        format!("blake3:{}g:15", &hex[1..]),
        format!("blake3:0x{}:15", &hex[2..]),
        format!("blake3::{hex}:15"),
        format!("blake3:{hex}:"),
        format!("blake3:{hex}:015"),
        format!("blake3:{hex}:00"),
        format!("blake3:{hex}:+15"),
        format!("blake3:{hex}:-15"),
        format!("blake3:{hex}:1e3"),
        format!("blake3:{hex}:15.0"),
        format!("blake3:{hex}:0x15"),
        format!("blake3:{hex}:15:"),
        format!("blake3:{hex}:15:15"),
        format!("blake3:{hex}:15 "),
        format!(" blake3:{hex}:15"),
        format!("blake3:{hex}:15\n"),
        format!("blake3:{hex}:15\0"),
        format!("blake3:{hex}:9223372036854775808"),
        format!("blake3:{hex}:18446744073709551616"),
        format!("blake3:{hex}:٣"),
        format!("../{hex}:15"),
        format!("blake3/{hex}-15"),
    ];
    let name = |algo, content: &[u8]| {
        let key = BlockKey::of(algo, content).expect("a block");
        json!({ "content": String::from_utf8_lossy(content), "key": key.to_string(), "name": key.name(),
                "path": format!("{algo}/{}", key.name()) })
    };
    json!({
        "about": [
            "valid: blob ids that parse and print as themselves. invalid: neither blob ids nor block keys.",
            "aliases: read as the id behind them, and never written.",
            "A block key has the same form, but a size from 1 to 16777216 only.",
            "blocks: a content with its block key, the name of its file or object, and the path below the prefix."
        ],
        "valid": valid,
        "aliases": { format!("sha-256:{hex}:15"): format!("sha256:{hex}:15") },
        "invalid": wrong.as_slice(),
        "blocks": [name(Algo::Blake3, bytes), name(Algo::Sha256, bytes), name(Algo::Blake3, b"\0")],
    })
}
