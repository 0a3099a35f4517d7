//! The window bounds memory, whatever the size of the blob: a put and a get of a stream run in a process of
//! their own, and the kernel records its largest resident size.

#[path = "support/mod.rs"]
mod support;

use std::io::Read;

use crate::support::pair::{Blocks, Manifests, Pair};
use crate::support::{child, needs_servers};
use graviton_core::testing::Recipe;
use graviton_core::{Algo, BlobId, Config, Hasher};

const TASK: &str = "GRAVITON_TEST_TASK";
const BYTES: &str = "put of bytes";
const GIB: &str = "GRAVITON_MEMORY_GIB";

/// The limit that issue 2 promises.
const MOST_MIB: u64 = 192;

/// A repeated pattern: it takes little disk space, and has no equal blocks in a row.
struct Repeated {
    pattern: Vec<u8>,
    at: u64,
    size: u64,
}

impl Repeated {
    fn new(size: u64) -> Repeated {
        // Not a multiple of a buffer, so that it is cut at other positions each time until it settles.
        Repeated { pattern: "xof:memory:20000003".parse::<Recipe>().unwrap().bytes(), at: 0, size }
    }
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let from = (self.at % self.pattern.len() as u64) as usize;
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let count = buffer.len().min(self.pattern.len() - from).min(left);
        buffer[..count].copy_from_slice(&self.pattern[from..from + count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// The largest resident size so far, in MiB.
fn most_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[test]
#[ignore = "not a test: what the test starts as another process"]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    if task == BYTES {
        return put_bytes();
    }
    let size = std::env::var(GIB).map_or(1.0, |gib| gib.parse::<f64>().unwrap()) * f64::from(1 << 30);
    let store = Config::from_env().unwrap().open().unwrap();
    let put = store.put(Repeated::new(size as u64)).unwrap();
    let after_put = most_resident();

    let mut reader = store.reader(&put.id).unwrap();
    let mut hasher = Hasher::new(Algo::Blake3);
    let mut length = 0;
    while let Some(bytes) = reader.next_block().unwrap() {
        hasher.update(&bytes);
        length += bytes.len() as u64;
    }
    assert_eq!(BlobId::new(Algo::Blake3, hasher.finish(), length).unwrap(), put.id);
    assert_eq!(length, size as u64);
    let after_get = most_resident();
    println!("{length} bytes: {after_put} MiB after the put, {after_get} MiB after the get");
    assert!(after_get < MOST_MIB, "{after_put} MiB after the put, {after_get} MiB after the get");
}

/// A put of bytes in memory needs little memory beside them: no copy, and no buffers.
fn put_bytes() {
    let store = Config::from_env().unwrap().open().unwrap();
    let content = "xof:bytes:200000003".parse::<Recipe>().unwrap().bytes();
    // The memory for generating the bytes does not count (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = most_resident();
    store.put_bytes(content).unwrap();
    let after = most_resident();
    println!("{before} MiB before it, {after} MiB after the put of bytes");
    assert!(after - before < 32, "{before} MiB before it, {after} MiB after it");
}

/// `GRAVITON_MEMORY_GIB` sets the size of the stream.
fn assert_a_long_stream_takes_little_memory(pair: &Pair) {
    assert_little_memory("put and get", "MiB after the get", pair);
}

/// Does the task in a process of its own, which prints these last words if it reaches its end.
fn assert_little_memory(task: &str, last_words: &str, pair: &Pair) {
    let output = child::command(module_path!())
        .env(TASK, task)
        .env("GRAVITON_FS_ROOT", pair.root.path())
        .envs(pair.settings.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(last_words), "the child did not run: {text}");
    println!("{text}");
}

/// With the default chunker.
fn pair(blocks: Blocks, manifests: Manifests) -> Pair {
    let mut pair = Pair::new(blocks, manifests);
    pair.settings.retain(|(name, _)| *name != "GRAVITON_CHUNKER");
    pair
}

#[test]
fn bytes_in_memory_are_not_copied() {
    assert_little_memory(BYTES, "MiB after the put of bytes", &pair(Blocks::Files, Manifests::Sqlite));
}

#[test]
fn a_long_stream_takes_little_memory() {
    assert_a_long_stream_takes_little_memory(&pair(Blocks::Files, Manifests::Sqlite));
}

#[test]
fn a_long_stream_takes_little_memory_with_s3_and_postgres() {
    needs_servers!();
    assert_a_long_stream_takes_little_memory(&pair(Blocks::S3, Manifests::Postgres));
}
