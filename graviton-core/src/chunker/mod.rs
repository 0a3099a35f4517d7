//! Chunkers cut a stream into blocks.
//!
//! A [`ChunkerSpec`] is the setting (`GRAVITON_CHUNKER`), parsed and checked; a [`Chunker`] is the running
//! state of one stream. Boundaries depend only on the bytes and the setting, never on the sizes of the reads
//! that deliver them: a chunker gets the bytes from the start of the current block, and either finds its end
//! or asks for more.
//!
//! Boundaries are part of the format: two stores share blocks only if they cut alike. A changed algorithm
//! gets another name and never changes the behaviour of an old one (`tests/vectors/chunks.json`).

mod cut;
mod delimiter;
mod fastcdc;
mod fixed;

use std::fmt;
use std::str::FromStr;

#[cfg(any(test, feature = "testing"))]
use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::key::MAX_BLOCK_SIZE;

use delimiter::Delimiter;
use fastcdc::FastCdc;
use fixed::Fixed;

pub use cut::Chunker;

/// How streams are cut into blocks.
///
/// ```
/// use graviton_core::ChunkerSpec;
/// let spec: ChunkerSpec = "fixed:65536".parse()?;
/// assert_eq!(spec.max_size(), 65536);
/// assert_eq!(ChunkerSpec::default().to_string(), "fastcdc:65536:262144:1048576");
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkerSpec(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Fixed { size: usize },
    FastCdc { min: usize, average: usize, max: usize },
    Delimiter { delimiter: Vec<u8>, max: usize },
}

/// The longest delimiter in bytes.
const MAX_DELIMITER: usize = 256;

impl ChunkerSpec {
    /// A chunker at the start of a stream.
    pub fn chunker(&self) -> Box<dyn Chunker> {
        match &self.0 {
            Kind::Fixed { size } => Box::new(Fixed::new(*size)),
            Kind::FastCdc { min, average, max } => Box::new(FastCdc::new(*min, *average, *max)),
            Kind::Delimiter { delimiter, max } => Box::new(Delimiter::new(delimiter.clone(), *max)),
        }
    }

    /// No block is larger than this many bytes.
    pub fn max_size(&self) -> usize {
        match self.0 {
            Kind::Fixed { size: max } | Kind::FastCdc { max, .. } | Kind::Delimiter { max, .. } => max,
        }
    }
}

impl Default for ChunkerSpec {
    /// `fastcdc:65536:262144:1048576`.
    ///
    /// An average of 256 KiB costs 0.2 CPU seconds a GiB in files and deduplicates far better than 1 MiB.
    fn default() -> ChunkerSpec {
        ChunkerSpec(Kind::FastCdc { min: 64 << 10, average: 256 << 10, max: 1 << 20 })
    }
}

impl fmt::Display for ChunkerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed { size } => write!(f, "fixed:{size}"),
            Kind::FastCdc { min, average, max } => write!(f, "fastcdc:{min}:{average}:{max}"),
            Kind::Delimiter { delimiter, max } => {
                f.write_str("delimiter:")?;
                for byte in delimiter {
                    write!(f, "{byte:02x}")?;
                }
                write!(f, ":{max}")
            }
        }
    }
}

impl FromStr for ChunkerSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<ChunkerSpec> {
        let parts: Vec<&str> = text.split(':').collect();
        let kind = match parts[..] {
            ["fixed", size] => number(size).and_then(fixed),
            ["fastcdc", min, average, max] => {
                number(min).and_then(|min| fast_cdc(min, number(average)?, number(max)?))
            }
            ["delimiter", hex, max] => number(max).and_then(|max| delimited(hex, max)),
            _ => Err("it is none of the known forms".to_owned()),
        };
        kind.map(ChunkerSpec).map_err(|why| {
            Error::new(Code::Config, format!("{text:?} is not a chunker: {why}"))
                .with_advice("use fixed:<bytes>, fastcdc:<min>:<avg>:<max> or delimiter:<hex>:<max>")
        })
    }
}

fn number(text: &str) -> Result<usize, String> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical).ok_or_else(|| format!("{text:?} is not a plain number of bytes"))
}

fn fixed(size: usize) -> Result<Kind, String> {
    if size > MAX_BLOCK_SIZE {
        return Err(format!("a block has at most {MAX_BLOCK_SIZE} bytes"));
    }
    Ok(Kind::Fixed { size })
}

fn fast_cdc(min: usize, average: usize, max: usize) -> Result<Kind, String> {
    // The bounds of the 2020 algorithm's reference crate, of which we use the tables. It looks at bytes in
    // pairs, so an odd size would cut one byte off from where it says.
    for (name, value, least, most) in
        [("min", min, 64, 1 << 20), ("avg", average, 256, 4 << 20), ("max", max, 1024, MAX_BLOCK_SIZE)]
    {
        if !(least..=most).contains(&value) || value % 2 != 0 {
            return Err(format!("{name} is an even number from {least} to {most}"));
        }
    }
    if min > average || average > max {
        return Err("the sizes must not fall from min to avg to max".to_owned());
    }
    Ok(Kind::FastCdc { min, average, max })
}

fn delimited(hex: &str, max: usize) -> Result<Kind, String> {
    let Kind::Fixed { size: max } = fixed(max)? else { unreachable!("fixed gives Fixed") };
    if hex.is_empty() || !hex.len().is_multiple_of(2) || hex.len() > 2 * MAX_DELIMITER {
        return Err(format!("the delimiter is 1 to {MAX_DELIMITER} bytes in hexadecimal"));
    }
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        let lower = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        u8::from_str_radix(text, 16).ok().filter(|_| lower)
    };
    let delimiter: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    let delimiter = delimiter.ok_or("the delimiter is not lower-case hexadecimal")?;
    if delimiter.len() > max {
        return Err("max is less than the length of the delimiter".to_owned());
    }
    Ok(Kind::Delimiter { delimiter, max })
}

/// The sizes and digests into which a chunker cuts bytes that are all in memory: the oracle of tests.
#[cfg(any(test, feature = "testing"))]
pub fn cut_all(spec: &ChunkerSpec, bytes: &[u8]) -> Vec<(usize, Digest)> {
    let mut chunker = spec.chunker();
    let mut rest = bytes;
    let mut blocks = Vec::new();
    while let Some(size) = chunker.cut(rest, true) {
        blocks.push((size, crate::digest::Algo::Blake3.digest(&rest[..size])));
        rest = &rest[size..];
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPECS: [&str; 9] = [
        "fixed:1",
        "fixed:1000",
        "fixed:65536",
        "fastcdc:64:256:1024",
        "fastcdc:1024:4096:16384",
        "fastcdc:65536:262144:1048576",
        "delimiter:0a:100",
        "delimiter:0d0a0d0a:4096",
        "delimiter:616161:64",
    ];

    /// Cuts like a stream: shows the chunker what has come so far, piece by piece.
    fn cut_in_pieces(spec: &ChunkerSpec, bytes: &[u8], pieces: &[usize]) -> Vec<usize> {
        let mut chunker = spec.chunker();
        let (mut start, mut come) = (0, 0);
        let mut sizes = Vec::new();
        let mut pieces = pieces.iter().cycle();
        loop {
            while let Some(size) = chunker.cut(&bytes[start..come], come == bytes.len()) {
                sizes.push(size);
                start += size;
            }
            if come == bytes.len() {
                assert_eq!(start, come, "nothing is left over");
                return sizes;
            }
            come = (come + pieces.next().unwrap()).min(bytes.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn boundaries_do_not_depend_on_the_reads(
            seed in any::<u64>(),
            length in 0_usize..300_000,
            letters in prop_oneof![Just(256_u64), Just(3)],
            pieces in prop::collection::vec(1_usize..70_000, 1..8),
            spec in prop::sample::select(&SPECS[..]),
        ) {
            let spec: ChunkerSpec = spec.parse().unwrap();
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..length).map(|_| {
                state ^= state << 13; state ^= state >> 7; state ^= state << 17;
                (state % letters) as u8 + if letters == 3 { 97 } else { 0 }
            }).collect();
            let whole: Vec<usize> = cut_all(&spec, &bytes).into_iter().map(|(size, _)| size).collect();
            prop_assert_eq!(whole.iter().sum::<usize>(), length);
            prop_assert!(whole.iter().all(|size| (1..=spec.max_size()).contains(size)));
            // Pieces of a few bytes would take for ever with the larger inputs, and the size of the
            // first piece matters most: the list is cycled.
            prop_assert_eq!(cut_in_pieces(&spec, &bytes, &pieces), whole.clone());
            if length < 3_000 {
                prop_assert_eq!(cut_in_pieces(&spec, &bytes, &[1]), whole);
            }
        }
    }

    #[test]
    fn settings_are_checked_and_print_as_they_were_read() {
        for text in SPECS {
            assert_eq!(text.parse::<ChunkerSpec>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "fixed",
            "fixed:0",
            "fixed:16777217",
            "fixed:01",
            "fixed:+1",
            "fixed:1:2",
            "Fixed:1",
            "fastcdc:64:256:1023",
            "fastcdc:65:256:1024",
            "fastcdc:256:64:1024",
            "fastcdc:64:2048:1024",
            "fastcdc:64:256:16777218",
            "delimiter::10",
            "delimiter:0:10",
            "delimiter:0A:10",
            "delimiter:0a0a:1",
            "delimiter:zz:10",
            "buzhash:1:2:3",
        ] {
            assert_eq!(bad.parse::<ChunkerSpec>().unwrap_err().code(), Code::Config, "{bad:?}");
        }
    }
}
