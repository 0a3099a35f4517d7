//! Reading a record, and looking at one.

use bytes::Bytes;

use crate::block::Packs;
use crate::block::pack::compress;
use crate::block::pack::record::{HEADER, Header};
use crate::block::pack::{altered, missing};
use crate::blocking;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::{Codec, Place};

/// The plain bytes of a block. Its header is compared with the key, and its payload with the header's
/// checksum unless the caller compares its digest: behind an intact header there can be zeros, of a hole.
pub(in crate::engine) async fn payload(
    packs: &dyn Packs,
    key: &BlockKey,
    place: &Place,
    is_hashed: bool,
) -> Result<Bytes> {
    let end = place.offset + HEADER + u64::from(place.stored_size);
    let record = packs.read(&place.name, place.offset..end).await?;
    let record = record.ok_or_else(|| missing(key, place, &packs.place(&place.name)))?;
    let header = checked_header(packs, key, place, &record)?;
    let payload = record.slice(HEADER as usize..);
    let is_damaged = || altered(key, place, &packs.place(&place.name), "is not the one that was written");
    if payload.len() < place.stored_size as usize || !is_hashed && !header.has_payload(&payload) {
        return Err(is_damaged());
    }
    if place.codec == Codec::Raw {
        return Ok(payload);
    }
    if !compress::is_known(place.codec) {
        let why = format!("block {key} is compressed, and this build of Graviton has no zstd");
        return Err(Error::new(Code::Unsupported, why)
            .with_advice("build graviton-core with its feature `zstd`, or use another program"));
    }
    let (codec, size) = (place.codec, key.size());
    let plain = blocking::run(move || compress::decode(codec, &payload, size)).await?;
    plain.ok_or_else(is_damaged)
}

/// The plain bytes of a block, if they have the digest of its key; otherwise `corrupt-block`.
pub(in crate::engine) async fn verified(packs: &dyn Packs, key: &BlockKey, place: &Place) -> Result<Bytes> {
    let bytes = payload(packs, key, place, true).await?;
    let (key, read) = (*key, bytes.clone());
    if blocking::run(move || key.algo().digest(&read)).await? == *key.digest() {
        return Ok(bytes);
    }
    Err(altered(&key, place, &packs.place(&place.name), "has another digest"))
}

/// Whether the header of the block's record is there, and all of its payload, whatever its bytes.
pub(in crate::engine) async fn look(packs: &dyn Packs, key: &BlockKey, place: &Place) -> Result<()> {
    // The last byte of the record shows that the pack does not end before.
    let end = place.offset + HEADER + u64::from(place.stored_size);
    let header = packs.read(&place.name, place.offset..place.offset + HEADER).await?;
    let header = header.ok_or_else(|| missing(key, place, &packs.place(&place.name)))?;
    checked_header(packs, key, place, &header)?;
    match packs.read(&place.name, end - 1..end).await? {
        Some(last) if last.len() == 1 => Ok(()),
        _ => Err(altered(key, place, &packs.place(&place.name), "ends too early")),
    }
}

fn checked_header(packs: &dyn Packs, key: &BlockKey, place: &Place, bytes: &[u8]) -> Result<Header> {
    let pack = || packs.place(&place.name);
    if bytes.is_empty() {
        return Err(missing(key, place, &pack()));
    }
    let header = Header::decode(bytes).ok_or_else(|| altered(key, place, &pack(), "has no header"))?;
    let is_sized = header.codec != Codec::Raw || header.stored_size as usize == key.size();
    if header.key != *key
        || header.stored_size != place.stored_size
        || header.codec != place.codec
        || !is_sized
    {
        return Err(altered(key, place, &pack(), "is of another block"));
    }
    Ok(header)
}

/// The packs of a store that has none where a row says that a block is in one.
pub(in crate::engine) fn no_packs(key: &BlockKey) -> Error {
    Error::new(Code::Unsupported, format!("block {key} is in a pack, and this block store has no packs"))
        .with_advice("open the store with the block store that it was written with")
}
