//! The token file: one line per bearer token, `NAME SCOPES EXPIRES HASH`.
//!
//! ```text
//! # name   scopes       expires                   SHA-256 of the token
//! ci       read,write   2027-01-01T00:00:00.000Z  sha256:9f86d0…
//! backup   read         never                     sha256:60303a…
//! ```
//! A token is 256 random bits, which are safe from guessing without a slow hash. A presented token is
//! compared with every line in constant time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use graviton_core::{Code, Error, Result};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::scopes::{Grant, Scopes};
use crate::timestamp::{self, now};

/// The prefix of every token, by which scanners find leaked tokens.
const PREFIX: &str = "grv_";

/// In milliseconds since 1970. `timestamp` has no later year.
const YEAR_10_000: i64 = 253_402_300_800_000;

/// The tokens of a file.
pub(crate) struct Tokens(Vec<Line>);

struct Line {
    name: Arc<str>,
    scopes: Scopes,
    /// Milliseconds since 1970.
    expires: Option<i64>,
    hash: [u8; 32],
}

impl Tokens {
    pub(crate) fn read(path: &Path) -> Result<Tokens> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io_at("cannot read the token file", path, error))?;
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The error does not show the line, which may contain a token itself.
            lines.push(parse(line).ok_or_else(|| {
                let message = format!("line {} of {} is not a token line", index + 1, path.display());
                Error::new(Code::Config, message).with_advice(
                    "use the lines that `graviton-server token` writes: NAME SCOPES EXPIRES sha256:HEX",
                )
            })?);
        }
        Ok(Tokens(lines))
    }

    /// Whether the file has no tokens.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The grant of this token, if the file has it and it has not expired.
    pub(super) fn grant(&self, token: &str) -> Option<Grant> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = u64::MAX;
        for (index, line) in self.0.iter().enumerate() {
            let same: Choice = line.hash.ct_eq(&hash);
            found.conditional_assign(&(index as u64), same);
        }
        let line = self.0.get(usize::try_from(found).ok()?)?;
        let expired = line.expires.is_some_and(|expires| expires <= now());
        (!expired).then(|| Grant { name: Arc::clone(&line.name), scopes: line.scopes })
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut parts = line.split_whitespace();
    let (name, scopes, expires, hash) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let expires = if expires == "never" { None } else { Some(timestamp::parse(expires)?) };
    let hash: graviton_core::Digest = hash.strip_prefix("sha256:")?.parse().ok()?;
    parts.next().is_none().then_some(())?;
    Some(Line { name: name.into(), scopes: Scopes::parse(scopes)?, expires, hash: *hash.as_bytes() })
}

/// Creates a token and its line for the file.
pub fn make(name: &str, scopes: &str, lifetime: Option<Duration>) -> Result<(String, String)> {
    if name.is_empty()
        || name.starts_with('#')
        || name.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    {
        return Err(Error::new(Code::InvalidArgument, format!("invalid token name {name:?}"))
            .with_advice("use a word without spaces or control characters, not starting with #"));
    }
    if Scopes::parse(scopes).is_none_or(|scopes| scopes == Scopes::default()) {
        return Err(Error::new(Code::InvalidArgument, format!("invalid scopes {scopes:?}"))
            .with_advice("use some of read, write, delete and admin, separated by commas"));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(Code::Internal, "the system provides no random numbers").with_source(error)
    })?;
    let token = format!("{PREFIX}{}", graviton_core::Digest::from_bytes(random));
    let hash = graviton_core::Digest::from_bytes(Sha256::digest(token.as_bytes()).into());
    let expires = match lifetime {
        None => "never".to_owned(),
        Some(lifetime) => {
            let end = now().saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
            if end >= YEAR_10_000 {
                return Err(Error::new(Code::InvalidArgument, "the token would expire after the year 9999")
                    .with_advice("omit the lifetime for a token that never expires"));
            }
            timestamp::rfc3339(end)
        }
    };
    Ok((token, format!("{name} {} {expires} sha256:{hash}", scopes.replace(' ', ","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_grants_what_its_line_says_until_it_expires() {
        let (token, line) = make("ci", "read,write", Some(Duration::from_secs(60))).unwrap();
        let (old, expired) = make("old", "read", Some(Duration::ZERO)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, format!("# tokens\n\n{line}\n{expired}\n")).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        let grant = tokens.grant(&token).unwrap();
        assert_eq!((&*grant.name, grant.scopes), ("ci", Scopes::parse("read,write").unwrap()));
        assert!(tokens.grant(&old).is_none());
        assert!(tokens.grant("").is_none() && tokens.grant(&token[1..]).is_none());
        assert!(!line.contains(&token));
    }

    #[test]
    fn a_line_that_is_none_is_an_error_that_does_not_show_it() {
        let hash = "0".repeat(64);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        for bad in [
            "grv_secret".to_owned(),
            format!("a root never sha256:{hash}"),
            format!("a read tomorrow sha256:{hash}"),
            format!("a read never {hash}"),
            format!("a read never sha256:{}", &hash[1..]),
            format!("a read never sha256:{hash} more"),
        ] {
            std::fs::write(&path, format!("\n{bad}\n")).unwrap();
            let error = Tokens::read(&path).err().unwrap();
            assert_eq!(error.code(), Code::Config, "{bad}");
            assert!(error.to_string().contains("line 2") && !error.to_string().contains("secret"));
        }
        let ages = Some(Duration::from_secs(4_000_000 * 86_400));
        assert_eq!(make("a", "read", ages).unwrap_err().code(), Code::InvalidArgument);
        assert!(
            make("", "read", None).is_err()
                && make("a b", "read", None).is_err()
                && make("a", "", None).is_err()
        );
    }
}
