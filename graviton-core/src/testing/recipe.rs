//! Test data that is the same everywhere, described by a short text instead of stored as bytes.
//!
//! Vectors and fixtures contain the text, and every language can generate the bytes:
//! - `xof:<seed>:<length>`: the first bytes of BLAKE3's extended output for the UTF-8 bytes of the seed
//!   (`printf seed | b3sum --length <length> --raw`);
//! - `lines:<seed>:<length>`: the same bytes, where each byte below 8 becomes a line feed and each other one
//!   the letter `a` + (byte mod 26), so that lines have 32 bytes on average;
//! - `repeat:<seed>:<period>:<length>`: the first `period` of those bytes, repeated;
//! - `zeros:<length>`;
//! - any of these joined by `+`: one after another, so that data can share a beginning.

use std::fmt;
use std::str::FromStr;

/// Content as a short text that the bytes are made from.
///
/// ```
/// use graviton_core::testing::Recipe;
/// let recipe: Recipe = "zeros:2+xof:seed:3".parse().unwrap();
/// assert_eq!(recipe.bytes().len(), 5);
/// assert_eq!(&recipe.bytes()[..2], &[0, 0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Xof { seed: String, length: usize },
    Lines { seed: String, length: usize },
    Repeat { seed: String, period: usize, length: usize },
    Zeros { length: usize },
}

impl Recipe {
    /// The content.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts.iter().flat_map(Part::bytes).collect()
    }
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Part::Xof { seed, length } => extended(seed, *length),
            Part::Lines { seed, length } => {
                let letter = |byte: u8| if byte < 8 { b'\n' } else { b'a' + byte % 26 };
                extended(seed, *length).into_iter().map(letter).collect()
            }
            Part::Repeat { seed, period, length } => {
                extended(seed, *period).into_iter().cycle().take(*length).collect()
            }
            Part::Zeros { length } => vec![0; *length],
        }
    }
}

fn extended(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Recipe, String> {
        let part = |text: &str| {
            let parts: Vec<&str> = text.split(':').collect();
            match parts[..] {
                ["xof", seed, length] => Some(Part::Xof { seed: seed.into(), length: length.parse().ok()? }),
                ["lines", seed, length] => {
                    Some(Part::Lines { seed: seed.into(), length: length.parse().ok()? })
                }
                ["repeat", seed, period, length] => Some(Part::Repeat {
                    seed: seed.into(),
                    period: period.parse().ok().filter(|period| *period > 0)?,
                    length: length.parse().ok()?,
                }),
                ["zeros", length] => Some(Part::Zeros { length: length.parse().ok()? }),
                _ => None,
            }
        };
        let parts: Option<Vec<Part>> = text.split('+').map(part).collect();
        let parts = parts.ok_or_else(|| format!("{text:?} is no recipe for content"))?;
        Ok(Recipe { text: text.to_owned(), parts })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(recipe: &str) -> Vec<u8> {
        recipe.parse::<Recipe>().unwrap().bytes()
    }

    #[test]
    fn the_bytes_are_what_the_description_says() {
        // `printf '' | b3sum` begins so.
        assert_eq!(bytes("xof::4"), [0xaf, 0x13, 0x49, 0xb9]);
        assert_eq!(bytes("lines::4"), b"ttvd");
        assert_eq!(bytes("repeat::2:5"), [0xaf, 0x13, 0xaf, 0x13, 0xaf]);
        assert_eq!(bytes("zeros:2+xof::1+zeros:0"), [0, 0, 0xaf]);
        assert!(bytes("lines:x:1000").contains(&b'\n'));
        for bad in ["", "xof:1", "xof:a:b:1", "zeros:-1", "repeat:a:0:5", "zeros:1+"] {
            assert!(bad.parse::<Recipe>().is_err(), "{bad:?}");
        }
    }
}
