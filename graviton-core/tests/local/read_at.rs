//! `Reader::read_at`: any offset and length, from many threads on one reader, apart from its position.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use graviton_core::{Code, Config, Store};

/// Bytes that do not repeat at block sizes.
fn content(size: usize) -> Vec<u8> {
    (0..size as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn small_blocks(directory: &std::path::Path, verify: &str) -> Store {
    let config = Config::for_directory(directory).set("GRAVITON_CHUNKER", "fixed:1000").unwrap();
    config.set("GRAVITON_VERIFY_READS", verify).unwrap().open().unwrap()
}

#[test]
fn threads_share_a_reader_and_each_gets_what_it_asked_for() {
    for verify in ["true", "false"] {
        let directory = tempfile::tempdir().unwrap();
        let store = small_blocks(directory.path(), verify);
        let whole = content(1_234_567);
        let id = store.put(&whole[..]).unwrap().id;
        let mut reader = store.reader(&id).unwrap();
        let mut start = [0; 5];
        reader.read_exact(&mut start).unwrap();

        let seed = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut state = seed.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x2545_f491_4f6c_dd1d);
                    for round in 0..200 {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let offset = (state >> 33) % (whole.len() as u64 + 100);
                        let length = [0, 1, 7, 999, 1000, 1001, 4096, 70_000][(state >> 20) as usize % 8];
                        let mut buffer = vec![0; length];
                        let count = reader.read_at(offset, &mut buffer).unwrap();
                        let from = (offset as usize).min(whole.len());
                        let expected = &whole[from..(from + length).min(whole.len())];
                        assert_eq!(&buffer[..count], expected, "round {round}: {length} bytes at {offset}");
                    }
                });
            }
        });

        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!((&start[..], &rest[..]), whole.split_at(5), "the position did not move");
    }
}

#[test]
fn what_is_behind_the_end_is_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = small_blocks(directory.path(), "true");
    let reader = store.reader(&store.put(&b"0123456789"[..]).unwrap().id).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(reader.read_at(8, &mut buffer).unwrap(), 2);
    assert_eq!(&buffer[..2], b"89");
    assert_eq!(reader.read_at(10, &mut buffer).unwrap(), 0);
    assert_eq!(reader.read_at(u64::MAX, &mut buffer).unwrap(), 0);
    let empty = store.reader(&store.put(std::io::empty()).unwrap().id).unwrap();
    assert_eq!(empty.read_at(0, &mut buffer).unwrap(), 0);
}

#[test]
fn an_altered_block_is_an_error_there_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = small_blocks(directory.path(), "true");
    let whole = content(10_000);
    let id = store.put(&whole[..]).unwrap().id;
    let third = store.manifest(&id, 2_000, 1).unwrap()[0];
    let file =
        directory.path().join(format!("cas/blocks/blake3/{}-{}", third.key.digest(), third.key.size()));
    std::fs::write(&file, vec![0; third.key.size()]).unwrap();

    let reader = store.reader(&id).unwrap();
    let mut buffer = [0; 10];
    for _ in 0..2 {
        assert_eq!(reader.read_at(2_500, &mut buffer).unwrap_err().code(), Code::CorruptBlock);
        assert_eq!(reader.read_at(1_995, &mut buffer).unwrap_err().code(), Code::CorruptBlock);
        assert_eq!(reader.read_at(1_990, &mut buffer).unwrap(), 10);
        assert_eq!(reader.read_at(3_000, &mut buffer).unwrap(), 10);
        assert_eq!(&buffer, &whole[3_000..3_010]);
    }
    store.close();
    assert_eq!(reader.read_at(9_999, &mut buffer).unwrap_err().code(), Code::Closed);
}
