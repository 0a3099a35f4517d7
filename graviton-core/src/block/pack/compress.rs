//! Compression of blocks in packs.
//!
//! The key of a block is the hash of its plain bytes, so it does not depend on compression. A block is stored
//! as it is if compression saves less than an eighth. Compression of a large block is not even tried if a
//! sample of it does not shrink.

use bytes::Bytes;

use crate::place::Codec;

/// How new blocks in packs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With zstd at this level, 1 to 19. Needs the feature `zstd`.
    Zstd(i32),
}

impl Compression {
    /// The default: zstd at level 1, in a build that has it.
    pub const USUAL: Compression =
        if cfg!(feature = "zstd") { Compression::Zstd(1) } else { Compression::None };
}

/// The levels of zstd that can be chosen: higher ones need much memory to read, too.
pub(crate) const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Smaller blocks are compressed without a sample.
const SAMPLED: usize = 64 << 10;
const SAMPLE: usize = 4 << 10;

/// The payload of a block, and how it is encoded.
pub(crate) fn encode(compression: Compression, plain: &Bytes) -> (Codec, Bytes) {
    match compression {
        Compression::None => (Codec::Raw, plain.clone()),
        Compression::Zstd(level) => {
            let middle = plain.len() / 2;
            if plain.len() >= SAMPLED && !shrinks(&plain[middle..middle + SAMPLE], 1) {
                return (Codec::Raw, plain.clone());
            }
            match compressed(plain, level) {
                Some(payload) if saves(plain.len(), payload.len()) => (Codec::Zstd, payload.into()),
                _ => (Codec::Raw, plain.clone()),
            }
        }
    }
}

fn shrinks(sample: &[u8], level: i32) -> bool {
    compressed(sample, level).is_some_and(|payload| saves(sample.len(), payload.len()))
}

/// Whether it saves an eighth.
fn saves(plain: usize, payload: usize) -> bool {
    payload <= plain - plain / 8 && payload < plain
}

/// The plain bytes of a payload; `None` if they are not so many, or it is no such encoding. No more memory is
/// used than the block has bytes, whatever the payload says.
pub(crate) fn decode(codec: Codec, payload: &Bytes, size: usize) -> Option<Bytes> {
    match codec {
        Codec::Raw => (payload.len() == size).then(|| payload.clone()),
        Codec::Zstd => decompressed(payload, size).map(Bytes::from),
    }
}

/// Whether this build can read it.
pub(crate) fn is_known(codec: Codec) -> bool {
    codec == Codec::Raw || cfg!(feature = "zstd")
}

#[cfg(feature = "zstd")]
fn compressed(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    use std::cell::RefCell;
    use zstd::bulk::Compressor;
    thread_local! {
        /// Its memory is dear: it is kept for the next block on this thread.
        static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(of, _)| *of != level) {
            *kept = Some((level, Compressor::new(level).ok()?));
        }
        let (_, compressor) = kept.as_mut()?;
        compressor.compress(plain).ok()
    })
}

#[cfg(feature = "zstd")]
fn decompressed(payload: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut plain = vec![0; size];
    let count = zstd::bulk::decompress_to_buffer(payload, &mut plain[..]).ok()?;
    (count == size).then_some(plain)
}

#[cfg(not(feature = "zstd"))]
fn compressed(_: &[u8], _: i32) -> Option<Vec<u8>> {
    None
}

#[cfg(not(feature = "zstd"))]
fn decompressed(_: &[u8], _: usize) -> Option<Vec<u8>> {
    None
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::*;
    use crate::testing::Recipe;

    fn bytes(recipe: &str) -> Bytes {
        recipe.parse::<Recipe>().unwrap().bytes().into()
    }

    #[test]
    fn what_shrinks_is_compressed_and_comes_back() {
        for recipe in
            ["zeros:1000", "lines:a:5000", "zeros:1", "lines:b:300000", "xof:c:100000", "xof:d:3000"]
        {
            let plain = bytes(recipe);
            for level in [1, 19] {
                let (codec, payload) = encode(Compression::Zstd(level), &plain);
                let is_small = !recipe.starts_with("xof") && plain.len() > 8;
                assert_eq!(codec == Codec::Zstd, is_small, "{recipe}");
                assert_eq!(decode(codec, &payload, plain.len()).as_ref(), Some(&plain), "{recipe}");
            }
            assert_eq!(encode(Compression::None, &plain), (Codec::Raw, plain));
        }
    }

    #[test]
    fn a_payload_that_lies_about_its_size_is_refused() {
        let (codec, payload) = encode(Compression::Zstd(1), &bytes("zeros:16777216"));
        assert_eq!(codec, Codec::Zstd);
        assert!(payload.len() < 10_000);
        for size in [0, 1, 4096, 16_777_215] {
            assert_eq!(decode(codec, &payload, size), None);
        }
        for length in 0..payload.len() {
            assert_eq!(decode(codec, &payload.slice(..length), 16_777_216), None);
        }
        assert_eq!(decode(Codec::Raw, &payload, payload.len() + 1), None);
    }
}
