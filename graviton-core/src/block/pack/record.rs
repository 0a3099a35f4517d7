//! The bytes of a pack: a header, then records. All numbers are little-endian.
//!
//! | header of a pack | |
//! |---|---|
//! | 0..8 | `graviton` in ASCII |
//! | 8..10 | the format, 1 |
//! | 10..16 | 0 |
//! | 16..32 | id of the store |
//! | 32..48 | name of the pack |
//! | 48..60 | 0 |
//! | 60..64 | CRC-32C of the 60 bytes before |
//!
//! | record, from a multiple of 8 on | |
//! |---|---|
//! | 0..4 | `blok` in ASCII |
//! | 4 | flags, 0 |
//! | 5 | kind: 0 block (1 is reserved for a manifest) |
//! | 6 | codec of the payload: 0 as it is, 1 zstd (RFC 8878) |
//! | 7 | cipher of the payload: 0 none (a nonce would stand at its start) |
//! | 8 | algorithm of the digest: 1 blake3, 2 sha256 |
//! | 9..12 | 0 |
//! | 12..16 | size of the block |
//! | 16..20 | size of the payload |
//! | 20..24 | CRC-32C of the payload |
//! | 24..56 | digest of the block |
//! | 56..60 | 0 |
//! | 60..64 | CRC-32C of the 60 bytes before |
//! | 64.. | the payload |
//!
//! The checksums distinguish a record from a damaged or half-written one without hashing its payload. Only
//! the digest proves that the block is right.

use bytes::Bytes;

use crate::digest::{Algo, Digest};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::PackName;

pub use crate::place::{ALIGNMENT, Codec, HEADER, record_size};

const PACK_MAGIC: &[u8; 8] = b"graviton";
const RECORD_MAGIC: &[u8; 4] = b"blok";
const FORMAT: u16 = 1;

/// The header of a pack of the store with this id, which is 32 hex digits.
pub fn pack_header(store_id: &str, name: &PackName) -> Result<Bytes> {
    let mut header = vec![0; HEADER as usize];
    header[..8].copy_from_slice(PACK_MAGIC);
    header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    let id = u128::from_str_radix(store_id, 16).map_err(|_| {
        Error::new(
            Code::Internal,
            format!("{store_id:?} is not the id of a store: it is no hexadecimal number"),
        )
    })?;
    header[16..32].copy_from_slice(&id.to_be_bytes());
    header[32..48].copy_from_slice(name.as_bytes());
    seal(&mut header);
    Ok(header.into())
}

/// The id of the store, and the name, that the header of a pack gives; `None` for bytes that are no such
/// header.
pub fn read_pack_header(header: &[u8]) -> Option<(String, PackName)> {
    let header: &[u8; HEADER as usize] = header.try_into().ok()?;
    let store_id = format!("{:032x}", u128::from_be_bytes(header[16..32].try_into().ok()?));
    let name = PackName::from_bytes(header[32..48].try_into().ok()?);
    is_pack_header(header, &store_id, &name).then_some((store_id, name))
}

/// How many bytes further on another record may begin, in bytes that begin at a multiple of [`ALIGNMENT`].
/// All of them but a few at the end, if none may.
pub fn next_record(bytes: &[u8]) -> usize {
    let at = |step: usize| step * ALIGNMENT as usize;
    let last = bytes.len().saturating_sub(RECORD_MAGIC.len()) / ALIGNMENT as usize;
    (1..=last).find(|step| bytes[at(*step)..].starts_with(RECORD_MAGIC)).map_or(at(last + 1), at)
}

/// Whether a record begins with these bytes, which may be too few for its header.
pub fn begins_record(bytes: &[u8]) -> bool {
    bytes.starts_with(RECORD_MAGIC)
}

/// Whether it is the header of this pack.
pub fn is_pack_header(header: &[u8], store_id: &str, name: &PackName) -> bool {
    pack_header(store_id, name).is_ok_and(|own| *header == *own)
}

fn seal(header: &mut [u8]) {
    let checksum = crc32c::crc32c(&header[..60]);
    header[60..64].copy_from_slice(&checksum.to_le_bytes());
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The block.
    pub key: BlockKey,
    /// How the payload is encoded.
    pub codec: Codec,
    /// Its bytes.
    pub stored_size: u32,
    /// Its CRC-32C.
    pub checksum: u32,
}

impl Header {
    /// The header of the record with this payload.
    pub fn of(key: BlockKey, codec: Codec, payload: &[u8]) -> Header {
        Header { key, codec, stored_size: payload.len() as u32, checksum: crc32c::crc32c(payload) }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER as usize] {
        let mut header = [0; HEADER as usize];
        header[..4].copy_from_slice(RECORD_MAGIC);
        header[6] = self.codec.number();
        header[8] = self.key.algo().number() as u8;
        header[12..16].copy_from_slice(&(self.key.size() as u32).to_le_bytes());
        header[16..20].copy_from_slice(&self.stored_size.to_le_bytes());
        header[20..24].copy_from_slice(&self.checksum.to_le_bytes());
        header[24..56].copy_from_slice(self.key.digest().as_bytes());
        seal(&mut header);
        header
    }

    /// The reverse of [`encode`](Header::encode); `None` for bytes that are no such header. Nothing is
    /// allocated, so that sizes that lie cost nothing.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let header: &[u8; HEADER as usize] = bytes.get(..HEADER as usize)?.try_into().ok()?;
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let digest = Digest::from_bytes(header[24..56].try_into().ok()?);
        let algo = Algo::from_number(i64::from(header[8]))?;
        let read = Header {
            key: BlockKey::new(algo, digest, u64::from(number(12))).ok()?,
            codec: Codec::from_number(i64::from(header[6]))?,
            stored_size: number(16),
            checksum: number(20),
        };
        // It has no byte that is not said above.
        (read.encode() == *header).then_some(read)
    }

    /// Whether the payload is the one that was written.
    pub fn has_payload(&self, payload: &[u8]) -> bool {
        payload.len() == self.stored_size as usize && crc32c::crc32c(payload) == self.checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_no_other_one_is() {
        let key = BlockKey::of(Algo::Blake3, b"payload").unwrap();
        let header = Header::of(key, Codec::Raw, b"payload");
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        assert!(
            header.has_payload(b"payload")
                && !header.has_payload(b"Payload")
                && !header.has_payload(b"payloa")
        );
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&wrong), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..63]), None);
        assert_eq!(Header::decode(&[0; 64]), None);
    }

    #[test]
    fn the_header_of_a_pack_names_its_store_and_itself() {
        let (store, name) = ("0123456789abcdef0123456789abcdef", PackName::from_bytes([7; 16]));
        let header = pack_header(store, &name).unwrap();
        assert_eq!(header.len() as u64, HEADER);
        assert!(is_pack_header(&header, store, &name));
        assert!(!is_pack_header(&header, &store.replace('f', "e"), &name));
        assert!(!is_pack_header(&header, store, &PackName::from_bytes([8; 16])));
    }

    #[test]
    fn the_header_of_a_pack_is_read_back_and_no_other_one_is() {
        let (store, name) = ("0123456789abcdef0123456789abcdef", PackName::from_bytes([7; 16]));
        let header = pack_header(store, &name).unwrap();
        assert_eq!(read_pack_header(&header), Some((store.to_owned(), name)));
        for bit in 0..header.len() * 8 {
            let mut wrong = header.to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_pack_header(&wrong), None, "bit {bit}");
        }
        assert_eq!(read_pack_header(&header[..63]), None);
    }

    #[test]
    fn the_next_record_is_looked_for_where_one_may_begin() {
        let mut bytes = vec![0; 100];
        assert_eq!(next_record(&bytes), 104, "the last four bytes are no multiple of 8");
        for (at, is_found) in [(0, false), (7, false), (8, true), (17, false), (88, true), (96, true)] {
            bytes.fill(0);
            bytes[at..at + 4].copy_from_slice(b"blok");
            assert_eq!(next_record(&bytes), if is_found { at } else { 104 }, "{at}");
        }
        assert_eq!([next_record(&[]), next_record(&[0; 8]), next_record(b"blok")], [8, 8, 8]);
    }

    #[test]
    fn records_are_aligned() {
        assert_eq!([0, 1, 8, 4096].map(record_size), [64, 72, 72, 4160]);
    }
}
