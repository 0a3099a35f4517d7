//! The two digest algorithms that name blocks and blobs.
//!
//! Both give 32 bytes, written as 64 lower-case hex digits. A [`Digest`] is a type of its own and never a
//! string, so that nothing unparsed can become a path.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Code, Error, Result};

/// A digest algorithm. Ordered by its name.
///
/// ```
/// use graviton_core::Algo;
/// assert_eq!("sha256".parse::<Algo>()?, Algo::Sha256);
/// assert_eq!(Algo::default().to_string(), "blake3");
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Algo {
    /// BLAKE3 with 32 bytes of output: the default, and the faster one by far.
    #[default]
    Blake3,
    /// SHA-256, for those who must.
    Sha256,
}

impl Algo {
    /// Every algorithm, in order.
    pub const ALL: [Algo; 2] = [Algo::Blake3, Algo::Sha256];

    /// The name in ids, keys, paths and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Algo::Blake3 => "blake3",
            Algo::Sha256 => "sha256",
        }
    }

    /// The number that stands for it in the database, for ever: 1 or 2, in the order of the names.
    pub fn number(self) -> i64 {
        match self {
            Algo::Blake3 => 1,
            Algo::Sha256 => 2,
        }
    }

    /// The algorithm with that number.
    pub fn from_number(number: i64) -> Option<Algo> {
        Algo::ALL.into_iter().find(|algo| algo.number() == number)
    }

    /// The digest of bytes that are all in memory.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Algo::Blake3 => Digest(blake3::hash(bytes).into()),
            Algo::Sha256 => Digest(sha2::Sha256::digest(bytes).into()),
        }
    }
}

impl fmt::Display for Algo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algo {
    type Err = Error;

    /// Also reads `sha-256`, the name that RFC 9530 and many tools give it. It is never written.
    fn from_str(text: &str) -> Result<Algo> {
        let text = if text == "sha-256" { Algo::Sha256.name() } else { text };
        Algo::ALL.into_iter().find(|algo| algo.name() == text).ok_or_else(|| {
            Error::new(Code::InvalidId, format!("unknown digest algorithm {text:?}"))
                .with_advice("use blake3 or sha256")
        })
    }
}

/// A 32-byte digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest that has these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Exactly 64 lower-case hex digits.
    fn from_str(text: &str) -> Result<Digest> {
        let wrong = || {
            Error::new(Code::InvalidId, format!("{text:?} is not a digest"))
                .with_advice("a digest is 64 lower-case hexadecimal digits")
        };
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(wrong()),
        };
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Digest(bytes))
    }
}

/// Computes the digest of a stream.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    // Boxed: a BLAKE3 hasher is 1,912 bytes.
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algo: Algo) -> Hasher {
        Hasher(match algo {
            Algo::Blake3 => State::Blake3(Box::default()),
            Algo::Sha256 => State::Sha256(sha2::Sha256::new()),
        })
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Blake3(hasher) => {
                hasher.update(bytes);
            }
            State::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that came.
    pub fn finish(&self) -> Digest {
        match &self.0 {
            State::Blake3(hasher) => Digest(hasher.finalize().into()),
            State::Sha256(hasher) => Digest(hasher.clone().finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_of_nothing_are_the_published_ones() {
        assert_eq!(
            Algo::Blake3.digest(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(
            Algo::Sha256.digest(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_stream_has_the_digest_of_its_bytes() {
        for algo in Algo::ALL {
            let mut hasher = Hasher::new(algo);
            hasher.update(b"to");
            hasher.update(b"");
            hasher.update(b"gether");
            assert_eq!(hasher.finish(), algo.digest(b"together"));
            assert_eq!(Algo::from_number(algo.number()), Some(algo));
        }
        assert_eq!(Algo::from_number(3), None);
    }
}
