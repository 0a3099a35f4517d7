//! Where the bytes of a block are: under the block's own name, or in a pack.
//!
//! The row of a block says which. A [`Place`] is a position in a pack; a block without one is under its own
//! name (`docs/FORMAT.md`, "Packs").

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::random;

/// The name of a pack: 128 random bits, which no other pack ever gets. As text 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName([u8; 16]);

impl PackName {
    /// A name that no pack has.
    pub fn random() -> Result<PackName> {
        Ok(PackName(random::bytes()?))
    }

    /// The name that has these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> PackName {
        PackName(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PackName {
    type Err = Error;

    /// Exactly 32 lower-case hex digits.
    fn from_str(text: &str) -> Result<PackName> {
        let is_digits =
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = is_digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| PackName(number.to_be_bytes())).ok_or_else(|| {
            Error::new(Code::InvalidId, format!("{text:?} is not the name of a pack"))
                .with_advice("the name of a pack is 32 lower-case hexadecimal digits")
        })
    }
}

/// The row of a pack. Ids are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackRow(pub i64);

/// How the payload of a record is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// As a zstd frame (RFC 8878).
    Zstd,
}

impl Codec {
    /// Its number in records and rows.
    pub fn number(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }

    /// The codec of this number, if there is one.
    pub fn from_number(number: i64) -> Option<Codec> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// The place of a block in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The row of the pack.
    pub pack: PackRow,
    /// Its name.
    pub name: PackName,
    /// Where the block's record begins in the pack, in bytes.
    pub offset: u64,
    /// The bytes of its payload.
    pub stored_size: u32,
    /// How these are encoded.
    pub codec: Codec,
}

impl Place {
    /// Whether both are one record.
    pub fn is(&self, other: &Place) -> bool {
        (self.pack, self.offset) == (other.pack, other.offset)
    }
}

/// For so long a request of S3 that got no answer may still be carried out: its signature is valid for 15
/// minutes, and servers let clocks differ by as much.
pub const DOUBT: Duration = Duration::from_secs(30 * 60);

/// Bytes of the header of a record, and of a pack's.
pub const HEADER: u64 = 64;

/// Records begin at multiples of this.
pub const ALIGNMENT: u64 = 8;

/// The bytes that a record with such a payload takes, up to the next one.
pub fn record_size(stored_size: u32) -> u64 {
    (HEADER + u64::from(stored_size)).next_multiple_of(ALIGNMENT)
}

/// The state of the pack that a block is in, as far as it matters to those who rely on the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Located {
    /// The place of the block.
    pub place: Place,
    /// Whether the pack is sealed. The record of another one is verified before a put relies on it.
    pub is_sealed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_strictly() {
        let name = PackName::random().unwrap();
        assert_eq!(name.to_string().parse::<PackName>().unwrap(), name);
        assert_ne!(PackName::random().unwrap(), name);
        for wrong in
            ["", "0", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &format!("+{}", "0".repeat(31))]
        {
            assert!(wrong.parse::<PackName>().is_err(), "{wrong}");
        }
    }
}
