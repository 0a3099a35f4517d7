//! Milliseconds since 1970 as RFC 3339 text in UTC, and back.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use jiff::civil::{DateTime, datetime};

/// In UTC. Not a `jiff::Timestamp`, which lacks the last day of the year 9999; a token file may name that
/// day.
const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);

/// Milliseconds since 1970, by this host's clock.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// `2026-02-03T04:05:06.789Z`. A time beyond the calendar becomes the nearest time in it.
pub fn rfc3339(milliseconds: i64) -> String {
    format!("{:.3}Z", EPOCH.saturating_add(SignedDuration::from_millis(milliseconds)))
}

/// The milliseconds of text like `2026-02-03T04:05:06Z`, with or without a fraction. Refuses every other form
/// that RFC 3339 and `jiff` allow.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let time: DateTime = text.parse().ok()?;
    let fraction = text.len().checked_sub("2026-02-03T04:05:06".len())?;
    let digits = fraction.saturating_sub(".".len());
    if format!("{time:.digits$}") != text {
        return None;
    }
    let since = time.duration_since(EPOCH);
    i64::try_from(since.as_nanos().div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_000_000_000_123), "2001-09-09T01:46:40.123Z");
        assert_eq!(rfc3339(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn parsing_is_the_inverse() {
        for moment in [
            0,
            951_782_400_000,
            1_000_000_000_123,
            4_107_542_399_999,
            -11_676_096_000_000,
            253_402_300_799_999,
        ] {
            assert_eq!(parse(&rfc3339(moment)), Some(moment));
        }
        for day in -3_000..60_000 {
            assert_eq!(parse(&rfc3339(day * 86_400_000)), Some(day * 86_400_000));
        }
        assert_eq!(parse("2001-09-09T01:46:40Z"), Some(1_000_000_000_000));
        assert_eq!(parse("2001-09-09T01:46:40.5Z"), Some(1_000_000_000_500));
        assert_eq!(parse("2001-09-09T01:46:40.123456789Z"), Some(1_000_000_000_123));
        for bad in [
            "",
            "never",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-02-30T00:00:00Z",
            "2001-09-09T24:00:00Z",
            "2001-09-09T01:46:60Z",
            "2001-13-01T00:00:00Z",
            "2001-09-09T01:46:40.Z",
            "2001-09-09T01:46:40.1234567890Z",
            "2001-09-09T01:46:40,5Z",
            "2001-09-09t01:46:40z",
            "20010909T014640Z",
            "2001-09-09 01:46:40Z",
            "+001-09-09T01:46:40Z",
            "2001-09-09T01:46:40+00:00",
            "2001-09-09T01:46:40+01:00Z",
            "é001-09-09T01:46:40Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_overflows() {
        assert!(rfc3339(i64::MIN).ends_with('Z'));
        assert!(rfc3339(i64::MAX).ends_with('Z'));
    }
}
