//! Durations and amounts of bytes as people write them: `30m`, `10MiB`. They are one number and one unit and
//! nothing else, so that the meaning is never in doubt.
//!
//! We parse them ourselves, because `humantime`, `bytesize` and `parse-size` accept more: `1h 30m`, `1.5h`,
//! `10M`.

use std::time::Duration;

const UNITS_OF_TIME: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

const UNITS_OF_BYTES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A whole number with `s`, `m`, `h` or `d`, or `0`: as `GRAVITON_GC_GRACE` has it.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "use a whole number with s, m, h or d, such as 30m, or 0";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    amount(text, UNITS_OF_TIME, FORM).map(Duration::from_secs)
}

/// A whole number, alone or with a unit.
pub fn bytes(text: &str) -> Result<u64, &'static str> {
    const FORM: &str =
        "use a whole number of bytes, or one with KiB, MiB, GiB, TiB, kB, MB, GB or TB, such as 10MiB";
    match amount(text, UNITS_OF_BYTES, FORM)? {
        0 => Err("it must be at least one byte"),
        bytes => Ok(bytes),
    }
}

/// The same in a second; `/s` may be behind it.
pub fn rate(text: &str) -> Result<u64, &'static str> {
    bytes(text.strip_suffix("/s").unwrap_or(text))
}

fn amount(text: &str, units: &[(&str, u64)], form: &'static str) -> Result<u64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit).ok_or(form)?;
    if number.is_empty() {
        return Err(form);
    }
    let product = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*size));
    product.ok_or("it is more than can be counted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("90s", 90), ("30m", 1_800), ("2h", 7_200), ("7d", 604_800)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "1",
            "m",
            "-1m",
            "+1m",
            "1.5h",
            "1 h",
            " 1h",
            "1h ",
            "1H",
            "1w",
            "1h30m",
            "1ms",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_and_rates() {
        for (text, expected) in [
            ("1", 1),
            ("512B", 512),
            ("10MiB", 10 << 20),
            ("3kB", 3_000),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
            assert_eq!(rate(&format!("{text}/s")), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "0",
            "0MiB",
            "MiB",
            "10M",
            "10mb",
            "10 MiB",
            "1.5GiB",
            "-1",
            "+1",
            "1e6",
            "10MiB/s",
            "18014398509481984KiB",
        ] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
        assert!(rate("10MiB/m").is_err() && rate("/s").is_err());
    }
}
