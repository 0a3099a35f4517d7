//! The digest of the content that a request declares in a header: `Content-Digest` and `Repr-Digest` (RFC
//! 9530), the older `Digest` (RFC 3230), or the SHA-256 of S3 clients (`X-Amz-Content-Sha256`,
//! `X-Amz-Checksum-Sha256`). Content that differs is refused, and nothing of it is kept.
//!
//! A request is also refused if it declares only digests of other kinds, or declares them after the content,
//! in a trailer: its client would take the answer for a check.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graviton_core::Code;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256, Sha512};

use crate::problem::Problem;

/// A body that is sent unchanged has one representation, so the first two mean the same.
const HEADERS: [&str; 3] = ["content-digest", "repr-digest", "digest"];

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Holds hexadecimal digits, or a word such as `UNSIGNED-PAYLOAD`.
const AMAZON_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// The prefix of the names of S3's other checksums, which are in base64.
const AMAZON_CHECKSUM: &str = "x-amz-checksum-";

/// Names the checksum that comes in a trailer.
const AMAZON_TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

/// The digests that the content must have, computed along with it.
#[derive(Default)]
pub(crate) struct Declared(Vec<Check>);

enum Check {
    Sha256(Sha256, Vec<u8>),
    Sha512(Sha512, Vec<u8>),
}

impl Declared {
    /// The digests that these headers declare; may be none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Declared, Problem> {
        if headers.contains_key(CONTENT_MD5) {
            return Err(refused("Content-MD5 is not checked"));
        }
        let mut declared = Declared::default();
        declared.add_those_of_s3(headers)?;
        for name in HEADERS {
            let (mut any, mut found) = (false, false);
            for value in headers.get_all(name) {
                any = true;
                let value = value.to_str().map_err(|_| refused(&format!("`{name}` is not text")))?;
                for member in value.split(',').map(str::trim).filter(|member| !member.is_empty()) {
                    if let Some(check) = check(name, member)? {
                        declared.add(check)?;
                        found = true;
                    }
                }
            }
            if any && !found {
                return Err(refused(&format!("`{name}` has no digest that is checked")));
            }
        }
        Ok(declared)
    }

    fn add_those_of_s3(&mut self, headers: &HeaderMap) -> Result<(), Problem> {
        for value in headers.get_all(AMAZON_DIGEST) {
            let text = value.to_str().unwrap_or("?").trim();
            if text.eq_ignore_ascii_case("UNSIGNED-PAYLOAD") {
                continue;
            }
            match from_hex(text) {
                Some(wanted) if wanted.len() == 32 => self.add(Check::Sha256(Sha256::new(), wanted))?,
                _ => return Err(refused(&format!("`{AMAZON_DIGEST}` is no SHA-256 in hexadecimal digits"))),
            }
        }
        for (name, value) in headers {
            let Some(kind) = name.as_str().strip_prefix(AMAZON_CHECKSUM) else { continue };
            match (kind, STANDARD.decode(value.as_bytes())) {
                // Says only that the checksum is of the whole object.
                ("type", _) => {}
                ("sha256", Ok(wanted)) if wanted.len() == 32 => {
                    self.add(Check::Sha256(Sha256::new(), wanted))?;
                }
                ("sha256", _) => return Err(refused(&format!("`{name}` is malformed"))),
                _ => return Err(refused(&format!("`{name}` is not checked"))),
            }
        }
        if headers.contains_key(AMAZON_TRAILER) {
            return Err(refused(&format!("`{AMAZON_TRAILER}` announces a checksum that is not checked")));
        }
        Ok(())
    }

    /// Refuses digests that come after the content: the server computed none along with it.
    pub(crate) fn none_in(trailers: &HeaderMap) -> Result<(), Problem> {
        let is_digest = |name: &HeaderName| {
            HEADERS.contains(&name.as_str())
                || *name == CONTENT_MD5
                || name.as_str().starts_with(AMAZON_CHECKSUM)
        };
        match trailers.keys().find(|name| is_digest(name)) {
            Some(name) => Err(refused(&format!("`{name}` in a trailer is not checked"))),
            None => Ok(()),
        }
    }

    /// At most one digest of each kind, because each is computed over all of the content.
    fn add(&mut self, check: Check) -> Result<(), Problem> {
        for known in &self.0 {
            match (known, &check) {
                (Check::Sha256(_, one), Check::Sha256(_, other))
                | (Check::Sha512(_, one), Check::Sha512(_, other)) => {
                    return if one == other { Ok(()) } else { Err(refused("two digests of a kind differ")) };
                }
                _ => {}
            }
        }
        self.0.push(check);
        Ok(())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for check in &mut self.0 {
            match check {
                Check::Sha256(hasher, _) => hasher.update(bytes),
                Check::Sha512(hasher, _) => hasher.update(bytes),
            }
        }
    }

    /// Fails unless the content, now complete, has the declared digests.
    pub(crate) fn finish(&mut self) -> Result<(), Problem> {
        for check in self.0.drain(..) {
            let (name, holds) = match check {
                Check::Sha256(hasher, wanted) => ("SHA-256", hasher.finalize()[..] == wanted[..]),
                Check::Sha512(hasher, wanted) => ("SHA-512", hasher.finalize()[..] == wanted[..]),
            };
            if !holds {
                let why = format!(
                    "the content does not have the {name} that a header of the request declares; nothing was stored"
                );
                return Err(Problem::new(Code::DigestMismatch, why));
            }
        }
        Ok(())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// One `algorithm=value`; `None` for an algorithm that is not checked.
fn check(header: &str, member: &str) -> Result<Option<Check>, Problem> {
    let malformed = || refused(&format!("`{header}` is malformed"));
    let (algorithm, value) = member.split_once('=').ok_or_else(malformed)?;
    // The older header has plain base64.
    let text = match header {
        "digest" => value,
        _ => value.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or_else(malformed)?,
    };
    let (length, make): (usize, fn(Vec<u8>) -> Check) = match &*algorithm.to_ascii_lowercase() {
        "sha-256" => (32, |wanted| Check::Sha256(Sha256::new(), wanted)),
        "sha-512" => (64, |wanted| Check::Sha512(Sha512::new(), wanted)),
        _ => return Ok(None),
    };
    let wanted = STANDARD.decode(text).map_err(|_| malformed())?;
    if wanted.len() == length { Ok(Some(make(wanted))) } else { Err(malformed()) }
}

fn refused(why: &str) -> Problem {
    let how = "declare `Content-Digest: sha-256=:BASE64:`, or put the content under its ID";
    Problem::new(Code::InvalidArgument, format!("{why}; {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &'static str, value: &str) -> Result<Declared, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Declared::of(&headers)
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        let digits = Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 15]).collect::<Vec<_>>();
        digits.iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)).collect()
    }

    #[test]
    fn what_is_declared_is_compared() {
        let right = STANDARD.encode(Sha256::digest(b"hello"));
        let wrong = STANDARD.encode(Sha256::digest(b"other"));
        let long = STANDARD.encode(Sha512::digest(b"hello"));
        for (name, value, holds) in [
            ("content-digest", format!("sha-256=:{right}:"), true),
            ("content-digest", format!("sha-512=:{long}:, md5=:AAAA:, sha-256=:{right}:"), true),
            ("repr-digest", format!("sha-256=:{wrong}:"), false),
            ("content-digest", format!("sha-512=:{long}:,sha-256=:{wrong}:"), false),
            ("digest", format!("SHA-256={right}"), true),
            ("digest", format!("SHA-256={wrong}"), false),
            ("x-amz-checksum-sha256", right.clone(), true),
            ("x-amz-checksum-sha256", wrong.clone(), false),
            ("x-amz-content-sha256", hexadecimal(b"hello"), true),
            ("x-amz-content-sha256", hexadecimal(b"other"), false),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD".to_owned(), true),
        ] {
            let mut declared = declared(name, &value).unwrap();
            declared.update(b"hel");
            declared.update(b"lo");
            assert_eq!(declared.finish().is_ok(), holds, "{name}: {value}");
        }
    }

    #[test]
    fn however_many_are_declared_one_of_a_kind_is_computed() {
        let (right, wrong) =
            (STANDARD.encode(Sha256::digest(b"hello")), STANDARD.encode(Sha256::digest(b"other")));
        let many = format!("sha-256=:{right}:,").repeat(500);
        assert_eq!(declared("content-digest", &many).unwrap().0.len(), 1);
        assert!(declared("content-digest", &format!("{many}sha-256=:{wrong}:")).is_err());
    }

    #[test]
    fn what_is_not_checked_is_refused() {
        for (name, value) in [
            ("content-digest", "md5=:AAAA:"),
            ("content-digest", "sha-256=AAAA"),
            ("content-digest", "sha-256=:AAAA:"),
            ("content-digest", "sha-256"),
            ("content-digest", ""),
            ("digest", "MD5=AAAA"),
            ("content-md5", "AAAA"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-amz-checksum-crc32c", "AAAAAA=="),
            ("x-amz-checksum-sha256", "AAAA"),
            ("x-amz-content-sha256", "AAAA"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ] {
            let problem = declared(name, value).err().unwrap_or_else(|| panic!("{name}: {value}"));
            assert_eq!(problem.code(), Code::InvalidArgument);
        }
    }
}
