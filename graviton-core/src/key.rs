//! The names of blobs and blocks: [`BlobId`] for a whole stream, [`BlockKey`] for one block of it.
//!
//! Both are (algorithm, digest, size). Parsing is strict, so that each blob or block has one name: an unknown
//! algorithm, upper-case hex, a digest of another length, a sign or leading zero in the size, or anything
//! after it is an error. A path or object name is only ever made from a parsed key. The text forms are fixed
//! by the storage layout (`docs/FORMAT.md`).

use std::fmt;
use std::str::FromStr;

use crate::digest::{Algo, Digest};
use crate::error::{Code, Error, Result};

/// The largest block: 16 MiB.
pub const MAX_BLOCK_SIZE: usize = 16 * 1024 * 1024;

/// The largest blob: 2^63 - 1 bytes.
pub const MAX_BLOB_SIZE: u64 = i64::MAX as u64;

/// The name of a blob: `<algo>:<hex>:<byteLength>`, the digest and length of the whole stream.
///
/// Ordered by algorithm, digest and size, which is the order of listings.
///
/// ```
/// use graviton_core::{Algo, BlobId};
/// let id = BlobId::of(Algo::Blake3, b"hello");
/// assert_eq!(
///     id.to_string(),
///     "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5"
/// );
/// assert_eq!(id.to_string().parse::<BlobId>()?, id);
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId {
    algo: Algo,
    digest: Digest,
    size: u64,
}

impl BlobId {
    /// The id of a stream with this digest and length in bytes. `too-large` beyond 2^63 - 1 bytes.
    pub fn new(algo: Algo, digest: Digest, size: u64) -> Result<BlobId> {
        if size > MAX_BLOB_SIZE {
            return Err(Error::new(Code::TooLarge, format!("a blob of {size} bytes is too large"))
                .with_advice(format!("a blob has at most {MAX_BLOB_SIZE} bytes")));
        }
        Ok(BlobId { algo, digest, size })
    }

    /// The id of bytes that are all in memory.
    pub fn of(algo: Algo, bytes: &[u8]) -> BlobId {
        BlobId { algo, digest: algo.digest(bytes), size: bytes.len() as u64 }
    }

    /// The algorithm of the digest.
    pub fn algo(&self) -> Algo {
        self.algo
    }

    /// The digest of the whole stream.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The length of the stream in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// The name of a block: its digest and its size, 1 byte to [`MAX_BLOCK_SIZE`].
///
/// As text `<algo>:<hex>:<size>`; as the name of a file or object `<hex>-<size>` ([`BlockKey::name`]).
///
/// ```
/// use graviton_core::{Algo, BlockKey};
/// let key = BlockKey::of(Algo::Blake3, b"hello")?;
/// assert_eq!(key.name(), "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f-5");
/// assert_eq!(BlockKey::from_name(Algo::Blake3, &key.name())?, key);
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    algo: Algo,
    digest: Digest,
    size: u32,
}

impl BlockKey {
    /// The key of a block with this digest and size in bytes.
    pub fn new(algo: Algo, digest: Digest, size: u64) -> Result<BlockKey> {
        match u32::try_from(size) {
            Ok(small @ 1..) if small as usize <= MAX_BLOCK_SIZE => Ok(BlockKey { algo, digest, size: small }),
            _ => Err(Error::new(Code::InvalidId, format!("a block cannot have {size} bytes"))
                .with_advice(format!("a block has 1 to {MAX_BLOCK_SIZE} bytes"))),
        }
    }

    /// The key of these bytes.
    pub fn of(algo: Algo, bytes: &[u8]) -> Result<BlockKey> {
        BlockKey::new(algo, algo.digest(bytes), bytes.len() as u64)
    }

    /// The algorithm of the digest.
    pub fn algo(&self) -> Algo {
        self.algo
    }

    /// The digest of the block.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size of the block in bytes.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// The name of its file or object: `<hex>-<size>`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.digest, self.size)
    }

    /// The key whose file or object under `<algo>/` has this name.
    pub fn from_name(algo: Algo, name: &str) -> Result<BlockKey> {
        let parsed = name
            .split_once('-')
            .and_then(|(hex, size)| BlockKey::new(algo, hex.parse().ok()?, parse_size(size)?).ok());
        parsed.ok_or_else(|| Error::new(Code::InvalidId, format!("{name:?} is not the name of a block")))
    }
}

/// Decimal digits without sign or leading zero, as far as u64 goes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

/// The three parts of `<algo>:<hex>:<size>`.
fn parse_parts(text: &str, what: &str) -> Result<(Algo, Digest, u64)> {
    let wrong = |why: &str| {
        let mut shown: String = text.chars().take(120).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Error::new(Code::InvalidId, format!("{shown:?} is not a {what}: {why}"))
            .with_advice(format!("a {what} is <algo>:<64 lower-case hex digits>:<size in bytes>"))
    };
    let mut parts = text.split(':');
    let (Some(algo), Some(hex), Some(size), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("it does not have three parts"));
    };
    let algo = algo.parse().map_err(|_| wrong("the algorithm is not blake3 or sha256"))?;
    let digest = hex.parse().map_err(|_| wrong("the digest is not 64 lower-case hex digits"))?;
    let size = parse_size(size).ok_or_else(|| wrong("the size is not a plain decimal number"))?;
    Ok((algo, digest, size))
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.algo, self.digest, self.size)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<BlobId> {
        let (algo, digest, size) = parse_parts(text, "blob id")?;
        BlobId::new(algo, digest, size).map_err(|error| error.with_code(Code::InvalidId))
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.algo, self.digest, self.size)
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<BlockKey> {
        let (algo, digest, size) = parse_parts(text, "block key")?;
        BlockKey::new(algo, digest, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_empty_blob_has_the_id_of_nothing() {
        assert_eq!(BlobId::of(Algo::Blake3, b"").to_string(), format!("blake3:{HEX}:0"));
    }

    #[test]
    fn parsing_is_strict() {
        let good = format!("blake3:{HEX}:10");
        assert!(good.parse::<BlobId>().is_ok());
        assert!(good.parse::<BlockKey>().is_ok());
        for bad in [
            String::new(),
            "blake3".into(),
            format!("blake2:{HEX}:10"),
            format!("Blake3:{HEX}:10"),
            format!("blake3:{}:10", HEX.to_uppercase()),
            format!("blake3:{}:10", &HEX[1..]),
            format!("blake3:{HEX}0:10"),
            format!("blake3:{HEX}:010"),
            format!("blake3:{HEX}:+10"),
            format!("blake3:{HEX}:-10"),
            format!("blake3:{HEX}:"),
            format!("blake3:{HEX}:1e3"),
            format!("blake3:{HEX}:10:"),
            format!("blake3:{HEX}:10 "),
            format!(" blake3:{HEX}:10"),
            format!("blake3:{HEX}:10\n"),
            format!("blake3:{HEX}:٣"),
            format!("blake3:{HEX}:9223372036854775808"),
            format!("blake3:{HEX}:99999999999999999999999"),
        ] {
            assert_eq!(bad.parse::<BlobId>().unwrap_err().code(), Code::InvalidId, "{bad:?}");
            assert_eq!(bad.parse::<BlockKey>().unwrap_err().code(), Code::InvalidId, "{bad:?}");
        }
        assert!(format!("blake3:{HEX}:0").parse::<BlobId>().is_ok());
        assert!(format!("blake3:{HEX}:9223372036854775807").parse::<BlobId>().is_ok());
        assert!(format!("blake3:{HEX}:0").parse::<BlockKey>().is_err());
        assert!(format!("blake3:{HEX}:16777216").parse::<BlockKey>().is_ok());
        assert!(format!("blake3:{HEX}:16777217").parse::<BlockKey>().is_err());
        for near in ["sha_256", "SHA-256", "sha-512", "blake-3"] {
            assert!(format!("{near}:{HEX}:1").parse::<BlobId>().is_err(), "{near}");
        }
    }

    #[test]
    fn the_other_name_of_sha256_is_read_and_never_written() {
        let (id, key) =
            (format!("sha-256:{HEX}:10").parse::<BlobId>(), format!("sha-256:{HEX}:10").parse::<BlockKey>());
        let text = format!("sha256:{HEX}:10");
        assert_eq!((id.unwrap().to_string(), key.unwrap().to_string()), (text.clone(), text));
    }

    #[test]
    fn names_of_files_are_strict_too() {
        let name = format!("{HEX}-10");
        assert_eq!(BlockKey::from_name(Algo::Sha256, &name).unwrap().name(), name);
        for bad in [
            "",
            "x",
            HEX,
            &format!("{HEX}-"),
            &format!("{HEX}-0"),
            &format!("{HEX}-01"),
            &format!("../{HEX}-1"),
        ] {
            assert!(BlockKey::from_name(Algo::Sha256, bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(bytes in any::<[u8; 32]>(), size in 1..=MAX_BLOCK_SIZE as u64, sha in any::<bool>()) {
            let algo = if sha { Algo::Sha256 } else { Algo::Blake3 };
            let key = BlockKey::new(algo, Digest::from_bytes(bytes), size).unwrap();
            prop_assert_eq!(key.to_string().parse::<BlockKey>().unwrap(), key);
            prop_assert_eq!(BlockKey::from_name(algo, &key.name()).unwrap(), key);
            let id = BlobId::new(algo, Digest::from_bytes(bytes), size).unwrap();
            prop_assert_eq!(id.to_string(), key.to_string());
            prop_assert_eq!(id.to_string().parse::<BlobId>().unwrap(), id);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = text.parse::<BlobId>();
            let _ = text.parse::<BlockKey>();
            let _ = BlockKey::from_name(Algo::Blake3, &text);
        }
    }
}
