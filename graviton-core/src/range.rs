//! Byte ranges as HTTP writes them: `FIRST-LAST`, `FIRST-`, `-N`.
//!
//! A range is satisfiable, as in RFC 9110 section 14.1.2, if it starts before the end of the blob, or is a
//! suffix of at least one byte; it is then cut to the size of the blob.

use std::ops::Range;
use std::str::FromStr;

/// The bytes that are wanted of a blob whose size is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From this offset to the end.
    From(u64),
    /// From the first to the last, both included.
    Between(u64, u64),
    /// The last bytes of the blob, this many.
    Suffix(u64),
}

impl FromStr for ByteRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ByteRange, Self::Err> {
        const FORM: &str = "use FIRST-LAST (the last byte included), FIRST- or -N, such as 0-99";
        let (first, last) = text.split_once('-').ok_or(FORM)?;
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => Err("the last byte comes before the first"),
            (Some(first), Some(last)) => Ok(ByteRange::Between(first, last)),
            (Some(first), None) if last.is_empty() => Ok(ByteRange::From(first)),
            (None, Some(count)) if first.is_empty() => Ok(ByteRange::Suffix(count)),
            _ => Err(FORM),
        }
    }
}

/// Parses digits only. A number that u64 cannot hold becomes the largest u64: both lie beyond the end of
/// every blob.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

impl ByteRange {
    /// The bytes of a blob of this size that the range covers; `None` if the range cannot be satisfied.
    pub fn of(self, size: u64) -> Option<Range<u64>> {
        match self {
            ByteRange::From(first) => (first < size).then_some(first..size),
            ByteRange::Between(first, last) => {
                (first < size).then(|| first..last.saturating_add(1).min(size))
            }
            ByteRange::Suffix(count) => (count > 0).then(|| size.saturating_sub(count)..size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, size: u64) -> Option<Range<u64>> {
        text.parse::<ByteRange>().unwrap().of(size)
    }

    #[test]
    fn the_three_forms() {
        assert_eq!(of("0-0", 10), Some(0..1));
        assert_eq!(of("2-4", 10), Some(2..5));
        assert_eq!(of("2-", 10), Some(2..10));
        assert_eq!(of("-3", 10), Some(7..10));
    }

    #[test]
    fn a_range_is_cut_to_the_blob_and_unsatisfiable_behind_it() {
        assert_eq!(of("9-9", 10), Some(9..10));
        assert_eq!(of("9-99999999999999999999999", 10), Some(9..10));
        assert_eq!(of("10-10", 10), None);
        assert_eq!(of("10-", 10), None);
        assert_eq!(of("99999999999999999999999-", 10), None);
        assert_eq!(of("-11", 10), Some(0..10));
        assert_eq!(of("-0", 10), None);
        assert_eq!(of("0-", 0), None);
        assert_eq!(of("-1", 0), Some(0..0));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "-", "5", "5-4", "a-b", "+1-2", "1-+2", "1-2-3", "--1", " 1-2", "1.0-2"] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad:?}");
        }
    }
}
