//! Reads a record, or checks one.

use std::sync::Arc;

use bytes::Bytes;

use crate::block::Packs;
use crate::block::pack::compress;
use crate::block::pack::record::{HEADER, Header};
use crate::block::pack::{altered, missing};
use crate::blocking;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::{Codec, Place};

/// Two records are read together if the gap between them is at most this large: reading it costs less than
/// another request.
const GAP: u64 = 16 << 10;

/// The plain bytes of a block. Its header is compared with the key, and its payload with the header's
/// checksum unless the caller compares its digest: an intact header may be followed by the zeros of a hole.
pub(in crate::engine) async fn payload(
    packs: &dyn Packs,
    key: &BlockKey,
    place: &Place,
    is_hashed: bool,
) -> Result<Bytes> {
    let record = packs.read(&place.name, place.offset..end_of(place)).await?;
    let record = record.ok_or_else(|| missing(key, place, &packs.place(&place.name)))?;
    let payload = stored(packs, key, place, &record, is_hashed)?;
    if place.codec == Codec::Raw {
        return Ok(payload);
    }
    let (codec, size) = (place.codec, key.size());
    let plain = blocking::run(move || compress::decode(codec, &payload, size)).await?;
    plain.ok_or_else(|| not_as_written(packs, key, place))
}

/// Where the payload of the record ends.
pub(in crate::engine) fn end_of(place: &Place) -> u64 {
    place.offset + HEADER + u64::from(place.stored_size)
}

/// The payload of a record as it is stored.
fn stored(
    packs: &dyn Packs,
    key: &BlockKey,
    place: &Place,
    record: &Bytes,
    is_hashed: bool,
) -> Result<Bytes> {
    let header = checked_header(packs, key, place, record)?;
    let payload = record.slice(HEADER as usize..);
    if payload.len() < place.stored_size as usize || !is_hashed && !header.has_payload(&payload) {
        return Err(not_as_written(packs, key, place));
    }
    if !compress::is_known(place.codec) {
        let why = format!("block {key} is compressed, and this build of Graviton has no zstd");
        return Err(Error::new(Code::Unsupported, why)
            .with_advice("build graviton-core with its feature `zstd`, or use another program"));
    }
    Ok(payload)
}

fn not_as_written(packs: &dyn Packs, key: &BlockKey, place: &Place) -> Error {
    altered(key, place, &packs.place(&place.name), "is not the one that was written")
}

/// Neighbours of one pack, read together.
pub(in crate::engine) struct Run {
    packs: Arc<dyn Packs>,
    start: u64,
    /// Fewer bytes if the pack ends before; `None` if it is gone.
    bytes: Option<Bytes>,
}

impl Run {
    /// Reads from the first place to the last one, which are in one pack.
    pub(in crate::engine) async fn read(packs: &Arc<dyn Packs>, first: &Place, last: &Place) -> Result<Run> {
        let bytes = packs.read(&first.name, first.offset..end_of(last)).await?;
        Ok(Run { packs: Arc::clone(packs), start: first.offset, bytes })
    }

    /// Whether the next block can be read together with one at the last place.
    pub(in crate::engine) fn goes_on(last: &Place, next: &Place) -> bool {
        next.pack == last.pack && (end_of(last)..=end_of(last) + GAP).contains(&next.offset)
    }

    /// The plain bytes of a block, like [`payload`]. Computes.
    pub(in crate::engine) fn payload(&self, key: &BlockKey, place: &Place, is_hashed: bool) -> Result<Bytes> {
        let packs = &*self.packs;
        let Some(bytes) = &self.bytes else { return Err(missing(key, place, &packs.place(&place.name))) };
        let at = |offset: u64| usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(bytes.len());
        let record = bytes.slice(at(place.offset)..at(end_of(place)));
        let payload = stored(packs, key, place, &record, is_hashed)?;
        if place.codec == Codec::Raw {
            return Ok(payload);
        }
        let plain = compress::decode(place.codec, &payload, key.size());
        plain.ok_or_else(|| not_as_written(packs, key, place))
    }

    /// The plain bytes of a block, if they have the digest of its key, like [`verified`]. Computes.
    pub(in crate::engine) fn verified(&self, key: &BlockKey, place: &Place) -> Result<Bytes> {
        let bytes = self.payload(key, place, true)?;
        if key.algo().digest(&bytes) == *key.digest() {
            return Ok(bytes);
        }
        Err(altered(key, place, &self.packs.place(&place.name), "has another digest"))
    }
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

/// Whether the header of the block's record is there, and all bytes of its payload, with any content. For an
/// object: whether it is long enough.
pub(in crate::engine) async fn look(packs: &dyn Packs, key: &BlockKey, place: &Place) -> Result<()> {
    let end = end_of(place);
    if !packs.grows() {
        return match packs.length(&place.name).await? {
            None => Err(missing(key, place, &packs.place(&place.name))),
            Some(length) if length < end => {
                Err(altered(key, place, &packs.place(&place.name), "ends too early"))
            }
            Some(_) => Ok(()),
        };
    }
    // The last byte of the record shows that the pack does not end before it.
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

/// The error of a store without packs for a row that says that a block is in one.
pub(in crate::engine) fn no_packs(key: &BlockKey) -> Error {
    Error::new(Code::Unsupported, format!("block {key} is in a pack, and this block store has no packs"))
        .with_advice("open the store with the block store that it was written with")
}
