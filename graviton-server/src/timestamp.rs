//! Milliseconds since 1970 as RFC 3339 text in UTC, and back. Written here, for it is all that is needed of a date
//! library.

/// `2026-02-03T04:05:06.789Z`, for every number of milliseconds.
pub fn rfc3339(milliseconds: i64) -> String {
    const DAY: i64 = 86_400_000;
    let (year, month, day) = civil(milliseconds.div_euclid(DAY));
    let rest = milliseconds.rem_euclid(DAY);
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, fraction) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{fraction:03}Z")
}

/// The moment that text of the form `2026-02-03T04:05:06Z`, with or without a fraction, names.
pub fn parse(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let fraction = text.strip_suffix('Z')?.get(19..)?;
    let milliseconds = match fraction.strip_prefix('.') {
        Some(digits)
            if (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            format!("{digits:0<3}")[..3].parse::<i64>().ok()?
        }
        None if fraction.is_empty() => 0,
        _ => return None,
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hours, minutes, seconds) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let date = day_of(year, month, day);
    let moment = date * 86_400_000 + hours * 3_600_000 + minutes * 60_000 + seconds * 1000 + milliseconds;
    let form = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let formed = form.iter().all(|(at, sign)| text.as_bytes().get(*at) == Some(sign));
    let exists = civil(date) == (year, month, day) && hours < 24 && minutes < 60 && seconds < 60;
    (formed && exists).then_some(moment)
}

/// The inverse of [`civil`].
fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9).rem_euclid(12);
    era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last day of a year and the lengths of the
/// months before it repeat; 400 years are an era of 146,097 days.
fn civil(day: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    // The era that 1970 lies in began on 0000-03-01.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day_of_month)
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
    fn every_day_follows_the_one_before() {
        let length = |year: i64, month: i64| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut date = (1600, 1, 1);
        let first = -135_140;
        for day in first..first + 2 * 146_097 {
            assert_eq!(civil(day), date, "day {day}");
            date.2 += 1;
            if date.2 > length(date.0, date.1) {
                date = (date.0, date.1 + 1, 1);
            }
            if date.1 > 12 {
                date = (date.0 + 1, 1, 1);
            }
        }
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
        for bad in [
            "",
            "never",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-02-30T00:00:00Z",
            "2001-09-09T24:00:00Z",
            "2001-13-01T00:00:00Z",
            "2001-09-09T01:46:40.Z",
            "2001-09-09 01:46:40Z",
            "+001-09-09T01:46:40Z",
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
