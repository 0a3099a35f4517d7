//! Conditions and ranges of a request: `If-Match`, `If-None-Match`, `Range`, `If-Range` (RFC 9110, sections
//! 13 and 14).
//!
//! A blob never changes, so its ID is its strong entity tag. A `Range` that is malformed, of another unit, or
//! of too many ranges is ignored, as the RFC allows. A well-formed one after the end of the blob is 416.
//!
//! The crate `headers` parses the conditions. Ranges are parsed here: neither `headers` nor
//! `http-range-header` bounds their number, merges overlapping ranges, or accepts every form of the RFC
//! (`Bytes = 0-1,,3-`, offsets beyond `u64`).

use std::ops::Range;

use graviton_core::{AsyncStore, BlobId, Code};
use headers::{ETag, HeaderMapExt, IfMatch, IfNoneMatch};
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::problem::Problem;
use graviton_core::ByteRange;

/// A `Range` with more ranges than this is ignored.
const MOST_RANGES: usize = 64;

/// The bytes to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    One(Range<u64>),
    /// Several, none of which overlap.
    Several(Vec<Range<u64>>),
    /// All ranges start after the end.
    Unsatisfiable,
}

/// The entity tag of a blob.
pub(super) fn etag(id: &BlobId) -> String {
    format!("\"{id}\"")
}

/// Refuses a request whose `If-Match` names another blob. The handler checks whether the blob exists.
pub(super) fn check(headers: &HeaderMap, id: &BlobId) -> Result<(), Problem> {
    let matches = match headers.typed_try_get::<IfMatch>() {
        Ok(None) => return Ok(()),
        Ok(Some(condition)) => {
            etag(id).parse::<ETag>().is_ok_and(|etag| condition.precondition_passes(&etag))
        }
        Err(_) => false,
    };
    if matches {
        Ok(())
    } else {
        Err(failed("`If-Match` does not name this blob; its entity tag is its ID in double quotes"))
    }
}

/// The same for a request that changes something: `If-Match` requires a blob that exists, and `If-None-Match`
/// one that does not.
pub(super) async fn check_change(
    store: &AsyncStore,
    headers: &HeaderMap,
    id: &BlobId,
) -> Result<(), Problem> {
    check(headers, id)?;
    if headers.get_all(IF_NONE_MATCH).iter().any(|value| !value.to_str().is_ok_and(are_tags)) {
        // If it were ignored, the request would change a blob that the client wanted to keep.
        let why = "`If-None-Match` is malformed; it is `*`, or entity tags in double quotes";
        return Err(Problem::new(Code::InvalidArgument, why));
    }
    let (must_be, must_not_be) = (headers.contains_key(IF_MATCH), is_known(headers, &etag(id)));
    if !(must_be || must_not_be) {
        return Ok(());
    }
    match store.exists(id).await? {
        false if must_be => Err(failed("the blob is not stored, and `If-Match` does not allow that")),
        true if must_not_be => Err(failed("the blob is stored, and `If-None-Match` does not allow that")),
        _ => Ok(()),
    }
}

/// Whether this is `*` or entity tags. `headers` leaves out invalid tags.
fn are_tags(text: &str) -> bool {
    let mut rest = text.trim();
    while !rest.is_empty() && rest != "*" {
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let Some((_, behind)) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')) else {
            return false;
        };
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => "",
            None => return false,
        };
    }
    true
}

/// A condition of the request does not hold.
fn failed(why: &str) -> Problem {
    Problem::new(Code::Conflict, why).with_status(StatusCode::PRECONDITION_FAILED)
}

/// Whether `If-None-Match` says that the client already has it.
pub(crate) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .typed_get::<IfNoneMatch>()
        .zip(etag.parse::<ETag>().ok())
        .is_some_and(|(condition, etag)| !condition.precondition_passes(&etag))
}

/// The requested bytes of a blob of this size.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let Some(range) = only(headers, &RANGE) else { return Wanted::All };
    // A date or a weak tag never matches: clients know no date of a blob.
    if headers.contains_key(IF_RANGE) && only(headers, &IF_RANGE) != Some(etag) {
        return Wanted::All;
    }
    let Some(ranges) = parse(range) else { return Wanted::All };
    let mut some: Vec<Range<u64>> = ranges.into_iter().filter_map(|range| range.of(size)).collect();
    if some.iter().any(Range::is_empty) {
        // A suffix of an empty blob, which `Content-Range` cannot express.
        return Wanted::All;
    }
    separate(&mut some);
    match some.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::One(some.remove(0)),
        _ => Wanted::Several(some),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

fn parse(value: &str) -> Option<Vec<ByteRange>> {
    let (unit, list) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // The RFC allows empty list elements.
    let elements = list
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty());
    let ranges: Vec<ByteRange> =
        elements.take(MOST_RANGES + 1).map(|element| element.parse().ok()).collect::<Option<_>>()?;
    (1..=MOST_RANGES).contains(&ranges.len()).then_some(ranges)
}

/// Keeps the order of the request. Ranges that overlap or touch are merged, and all are then in the order of
/// the blob.
fn separate(ranges: &mut Vec<Range<u64>>) {
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() < ranges.len() {
        *ranges = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    const TAG: &str = "\"blake3:00:10\"";

    fn of(range: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(range).unwrap());
        wanted(&headers, TAG, size)
    }

    #[test]
    fn ranges_of_the_rfc() {
        assert_eq!(of("bytes=0-0", 10), Wanted::One(0..1));
        assert_eq!(of("Bytes = 2-4", 10), Wanted::One(2..5));
        assert_eq!(of("bytes=-3", 10), Wanted::One(7..10));
        assert_eq!(of("bytes=7-, 0-1", 10), Wanted::Several(vec![7..10, 0..2]));
        assert_eq!(of("bytes=0-4,2-6,,8-8", 10), Wanted::Several(vec![0..7, 8..9]));
        assert_eq!(of("bytes=0-4,5-9", 10), Wanted::One(0..10));
        assert_eq!(of("bytes=3-4,99-", 10), Wanted::One(3..5));
        assert_eq!(of("bytes=10-", 10), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=-0", 10), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=-1", 0), Wanted::All);
    }

    #[test]
    fn what_is_no_range_is_left_aside() {
        let many = format!("bytes={}", "0-0,".repeat(MOST_RANGES + 1));
        for bad in ["bytes", "bytes=", "bytes=,", "bytes=a-b", "bytes=5-4", "items=0-1", "bytes=0-1;2", &many]
        {
            assert_eq!(of(bad, 10), Wanted::All, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-0"));
        twice.append(RANGE, HeaderValue::from_static("bytes=1-1"));
        assert_eq!(wanted(&twice, TAG, 10), Wanted::All);
    }

    #[test]
    fn conditions() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        for (value, holds) in
            [(TAG, true), ("W/\"blake3:00:10\"", false), ("Thu, 01 Jan 1970 00:00:00 GMT", false)]
        {
            headers.insert(IF_RANGE, HeaderValue::from_str(value).unwrap());
            assert_eq!(wanted(&headers, TAG, 10) == Wanted::One(0..1), holds, "{value}");
        }
        for (value, known) in [
            ("*", true),
            (TAG, true),
            ("W/\"blake3:00:10\"", true),
            ("\"a\", \"blake3:00:10\"", true),
            ("\"a\"", false),
            ("", false),
        ] {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            assert_eq!(is_known(&headers, TAG), known, "{value}");
        }
    }

    #[test]
    fn tags_are_told_from_what_is_none() {
        for right in ["*", TAG, "W/\"a\"", "\"a\", W/\"b,c\" ,\"d\"", ""] {
            assert!(are_tags(right), "{right}");
        }
        for wrong in ["garbage", "\"a", "\"a\" \"b\"", "a, \"b\"", "\"a\", b"] {
            assert!(!are_tags(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_ranges_are_apart_and_inside(text in "(bytes=)?[0-9,\\- a]{0,40}", size in 0u64..50) {
            match of(&text, size) {
                Wanted::One(range) => prop_assert!(range.start < range.end && range.end <= size),
                Wanted::Several(ranges) => {
                    prop_assert!(ranges.len() > 1);
                    let mut seen = vec![false; size as usize];
                    for range in ranges {
                        prop_assert!(range.start < range.end && range.end <= size);
                        for byte in range {
                            prop_assert!(!std::mem::replace(&mut seen[byte as usize], true));
                        }
                    }
                }
                Wanted::All | Wanted::Unsatisfiable => {}
            }
        }

        #[test]
        fn no_header_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                for name in [RANGE, IF_RANGE, IF_NONE_MATCH] {
                    headers.insert(name, value.clone());
                }
                let _ = (wanted(&headers, TAG, 10), is_known(&headers, TAG));
            }
        }
    }
}
