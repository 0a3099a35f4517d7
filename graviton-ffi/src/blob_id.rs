//! Blob ids and block keys: plain data, and their text form.

use std::ffi::c_char;
use std::str::FromStr;

use graviton_core::{Algo, BlobId, BlockKey, Code, Digest, Error, Result};

use crate::error::graviton_error;
use crate::guard::guard;
use crate::pointer::{borrow, give_text, invalid, out, slice};
use crate::status::graviton_status;

/// BLAKE3 with 32 bytes of output.
pub const GRAVITON_ALGO_BLAKE3: i32 = 1;

/// SHA-256.
pub const GRAVITON_ALGO_SHA256: i32 = 2;

/// The length of a digest in bytes.
pub const GRAVITON_DIGEST_SIZE: usize = 32;

/// The largest size of a block in bytes: 16 MiB.
pub const GRAVITON_BLOCK_SIZE_MAX: usize = 16_777_216;

/// The size of a buffer for the text of any blob id or block key with its NUL, in bytes.
pub const GRAVITON_BLOB_ID_TEXT_MAX: usize = 92;

/// The name of a blob: the digest and length of its whole content. Plain data of a fixed size that will never
/// grow; copy and keep it like a number. Two ids are equal if all their bytes are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_blob_id {
    /// The length of the blob in bytes, at most 2^63 - 1.
    pub size: u64,
    /// GRAVITON_ALGO_BLAKE3 or GRAVITON_ALGO_SHA256.
    pub algo: i32,
    /// 0.
    pub reserved: u32,
    /// The digest of the content.
    pub digest: [u8; GRAVITON_DIGEST_SIZE],
}

/// The name of a block: its digest and length. Plain data like graviton_blob_id.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct graviton_block_key {
    /// The length of the block in bytes, 1 to 16 MiB.
    pub size: u64,
    /// GRAVITON_ALGO_BLAKE3 or GRAVITON_ALGO_SHA256.
    pub algo: i32,
    /// 0.
    pub reserved: u32,
    /// The digest of the block.
    pub digest: [u8; GRAVITON_DIGEST_SIZE],
}

fn algo(number: i32) -> Result<Algo> {
    Algo::from_number(number.into()).ok_or_else(|| {
        invalid(format!("{number} is no digest algorithm"))
            .with_advice("use GRAVITON_ALGO_BLAKE3 or GRAVITON_ALGO_SHA256")
    })
}

fn check_reserved(reserved: u32) -> Result<()> {
    if reserved == 0 {
        Ok(())
    } else {
        Err(invalid(format!("the reserved field of an id is {reserved}, not 0")))
    }
}

impl graviton_blob_id {
    pub(crate) fn to_core(self) -> Result<BlobId> {
        check_reserved(self.reserved)?;
        BlobId::new(algo(self.algo)?, Digest::from_bytes(self.digest), self.size)
            .map_err(|error| invalid(error.to_string()))
    }
}

impl From<&BlobId> for graviton_blob_id {
    fn from(id: &BlobId) -> graviton_blob_id {
        graviton_blob_id {
            size: id.size(),
            algo: id.algo().number() as i32,
            reserved: 0,
            digest: *id.digest().as_bytes(),
        }
    }
}

impl graviton_block_key {
    /// The key in a structure that does not concern a block.
    pub(crate) const NONE: graviton_block_key =
        graviton_block_key { size: 0, algo: 0, reserved: 0, digest: [0; 32] };

    fn to_core(self) -> Result<BlockKey> {
        check_reserved(self.reserved)?;
        BlockKey::new(algo(self.algo)?, Digest::from_bytes(self.digest), self.size)
            .map_err(|error| invalid(error.to_string()))
    }
}

impl From<&BlockKey> for graviton_block_key {
    fn from(key: &BlockKey) -> graviton_block_key {
        graviton_block_key {
            size: key.size() as u64,
            algo: key.algo().number() as i32,
            reserved: 0,
            digest: *key.digest().as_bytes(),
        }
    }
}

/// A key from the caller.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn read_key(key: *const graviton_block_key) -> Result<BlockKey> {
    // SAFETY: the same contract.
    unsafe { borrow(key, "key") }?.to_core()
}

/// An id from the caller.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn read_id(id: *const graviton_blob_id, name: &str) -> Result<BlobId> {
    // SAFETY: the same contract.
    unsafe { borrow(id, name) }?.to_core()
}

/// An optional id from the caller.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn read_id_if_given(id: *const graviton_blob_id, name: &str) -> Result<Option<BlobId>> {
    // SAFETY: the same contract.
    if id.is_null() { Ok(None) } else { unsafe { read_id(id, name) }.map(Some) }
}

/// Ids from the caller; `None` for null, which differs from an empty list.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn read_ids(ids: *const graviton_blob_id, count: usize) -> Result<Option<Vec<BlobId>>> {
    // SAFETY: the same contract.
    let given = unsafe { slice(ids, count, "ids") }?;
    if ids.is_null() {
        Ok(None)
    } else {
        given.iter().map(|id| id.to_core()).collect::<Result<_>>().map(Some)
    }
}

/// # Safety
/// As [`slice`].
unsafe fn parsed<T: FromStr<Err = Error>>(text: *const c_char, length: usize) -> Result<T> {
    // SAFETY: the same contract.
    let bytes = unsafe { slice(text.cast::<u8>(), length, "text") }?;
    std::str::from_utf8(bytes)
        .map_err(|_| {
            Error::new(Code::InvalidId, "a text that is not UTF-8 is neither blob id nor block key")
        })?
        .parse()
}

/// Parses `<algo>:<64 lower-case hex digits>:<size in bytes>` of `length` bytes into `id`. Strict: one id has
/// one text. Any other text is GRAVITON_ERROR_INVALID_ID. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_blob_id_parse(
    text: *const c_char,
    length: usize,
    id: *mut graviton_blob_id,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(id, "id")?;
            out.set((&parsed::<BlobId>(text, length)?).into());
            Ok(())
        })
    }
}

/// Writes the text of an id and a NUL into `buffer` of `capacity` bytes, where GRAVITON_BLOB_ID_TEXT_MAX is
/// always enough, and its length without the NUL into `*length`. `buffer` may be NULL if `capacity` is 0, to
/// get only the length. `length` may be NULL. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_blob_id_format(
    id: *const graviton_blob_id,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let id = read_id(id, "id")?;
            Ok(give_text(&id.to_string(), buffer, capacity, length)?)
        })
    }
}

/// Computes the id of `length` bytes with this algorithm (GRAVITON_ALGO_…), on this thread. Stores nothing.
/// `bytes` may be NULL if `length` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_blob_id_of(
    algo: i32,
    bytes: *const u8,
    length: usize,
    id: *mut graviton_blob_id,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(id, "id")?;
            let bytes = slice(bytes, length, "bytes")?;
            out.set((&BlobId::of(self::algo(algo)?, bytes)).into());
            Ok(())
        })
    }
}

/// Compares two ids in the order of listings (algorithm, digest, size): `*order` becomes -1, 0 or 1. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_blob_id_compare(
    left: *const graviton_blob_id,
    right: *const graviton_blob_id,
    order: *mut i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let (left, right) = (read_id(left, "left")?, read_id(right, "right")?);
            out(order, "order")?.set(left.cmp(&right) as i32);
            Ok(())
        })
    }
}

/// Like graviton_blob_id_parse, for the key of a block: `<algo>:<hex>:<size>`, with a size of 1 to 16 MiB.
/// Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_block_key_parse(
    text: *const c_char,
    length: usize,
    key: *mut graviton_block_key,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(key, "key")?;
            out.set((&parsed::<BlockKey>(text, length)?).into());
            Ok(())
        })
    }
}

/// Like graviton_blob_id_format, for the key of a block: `<algo>:<hex>:<size>`. `buffer` may be NULL if
/// `capacity` is 0. `length` may be NULL. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_block_key_format(
    key: *const graviton_block_key,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let key = read_key(key)?;
            Ok(give_text(&key.to_string(), buffer, capacity, length)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_of_an_id_fits() {
        for algo in Algo::ALL {
            let id = BlobId::new(algo, Digest::from_bytes([0xff; 32]), graviton_core::MAX_BLOB_SIZE).unwrap();
            assert_eq!(id.to_string().len() + 1, GRAVITON_BLOB_ID_TEXT_MAX);
            assert_eq!(graviton_blob_id::from(&id).to_core().unwrap(), id);
        }
        assert_eq!(GRAVITON_BLOCK_SIZE_MAX, graviton_core::MAX_BLOCK_SIZE);
        // There is no padding, so that the bytes of equal ids are equal.
        assert_eq!(size_of::<graviton_blob_id>(), 8 + 4 + 4 + GRAVITON_DIGEST_SIZE);
    }
}
