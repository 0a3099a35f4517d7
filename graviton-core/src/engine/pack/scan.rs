//! Iterates over the records of a pack without rows that say where they are.
//!
//! The scan trusts no byte. A false length costs no memory, because only the header of each record is read
//! here. Where no record begins, as in a hole, the scan continues at the next intact header.

use bytes::Bytes;

use crate::block::Packs;
use crate::block::pack::record::{HEADER, Header, begins_record, next_record, record_size};
use crate::error::Result;
use crate::place::{ALIGNMENT, Codec, PackName};

/// Bytes that are read together.
const WINDOW: u64 = 1 << 20;

/// An iteration over one pack.
pub(in crate::engine) struct Walk<'a> {
    packs: &'a dyn Packs,
    name: PackName,
    /// The end of the pack.
    length: u64,
    /// The offset where the next record may begin.
    at: u64,
    /// Bytes of the pack, and the offset of the first of them.
    window: (u64, Bytes),
}

/// The next item of a pack.
pub(in crate::engine) enum Met {
    /// A record with an intact header. Its payload is not checked.
    Record(Header),
    /// The defect of a record.
    Unusable(Option<Header>, String),
}

impl<'a> Walk<'a> {
    /// An iteration from this offset on.
    pub(in crate::engine) fn new(
        packs: &'a dyn Packs,
        (name, length): (PackName, u64),
        from: u64,
    ) -> Walk<'a> {
        let at = from.min(length).next_multiple_of(ALIGNMENT);
        Walk { packs, name, length, at, window: (0, Bytes::new()) }
    }

    /// The offset where it continues.
    pub(in crate::engine) fn offset(&self) -> u64 {
        self.at
    }

    /// The next item, and the offset at which it begins. `None` at the end, and if the pack is gone.
    pub(in crate::engine) async fn next(&mut self) -> Result<Option<(u64, Met)>> {
        while self.at < self.length {
            let at = self.at;
            let bytes = self.bytes_at(at).await?;
            if (bytes.len() as u64) < HEADER {
                self.at = self.length;
                let why = "the pack ends within the header of a record".to_owned();
                return Ok(begins_record(&bytes).then_some((at, Met::Unusable(None, why))));
            }
            let Some(header) = Header::decode(&bytes) else {
                self.at += next_record(&bytes) as u64;
                continue;
            };
            if let Some(why) = defect(&header, self.length - at) {
                self.at += ALIGNMENT;
                return Ok(Some((at, Met::Unusable(Some(header), why))));
            }
            self.at += record_size(header.stored_size);
            return Ok(Some((at, Met::Record(header))));
        }
        Ok(None)
    }

    /// The bytes from this offset on: at least those of a header, if the pack does not end before.
    async fn bytes_at(&mut self, at: u64) -> Result<Bytes> {
        let (start, bytes) = &self.window;
        let end = start + bytes.len() as u64;
        if *start <= at && (at + HEADER <= end || at < end && end == self.length) {
            return Ok(bytes.slice((at - start) as usize..));
        }
        let wanted = at..(at + WINDOW).min(self.length);
        let bytes = self.packs.read(&self.name, wanted.clone()).await?.unwrap_or_default();
        if (bytes.len() as u64) < wanted.end - wanted.start {
            // The pack was cut or removed meanwhile.
            self.length = at + bytes.len() as u64;
        }
        self.window = (at, bytes.clone());
        Ok(bytes)
    }
}

/// The defect of a record with this many bytes, as far as its header shows it.
fn defect(header: &Header, there: u64) -> Option<String> {
    let (size, stored) = (header.key.size(), header.stored_size);
    let is_possible = match header.codec {
        Codec::Raw => stored as usize == size,
        Codec::Zstd => stored > 0 && stored as usize <= size,
    };
    if !is_possible {
        return Some(format!("it says that {stored} bytes are stored of a block of {size}"));
    }
    let needed = HEADER + u64::from(stored);
    (needed > there).then(|| format!("the pack ends {} bytes before it does", needed - there))
}
