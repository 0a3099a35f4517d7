//! Links: addresses of blobs that carry their own permission until they expire, for clients that cannot send
//! a token, such as `<img>` and `<video>`.
//!
//! A link is the address of a blob with two more parameters: `expires`, in seconds since 1970, and
//! `signature`, HMAC-SHA-256 over the blob and all other parameters. The order and the escaping of the
//! parameters do not matter, so a proxy that rewrites an address breaks no link. A link permits reading this
//! blob, presented as the link says, and nothing else. A single link cannot be revoked, but its key can.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use graviton_core::{BlobId, Code, Error, Result};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use ring::hmac;

use crate::problem::Problem;
use crate::timestamp::now;

/// The parameter that says when a link expires, and the one with its signature.
const EXPIRES: &str = "expires";
const SIGNATURE: &str = "signature";

/// Long enough that nobody guesses a key; short enough for every generator of random text.
const SHORTEST_KEY: usize = 32;

/// The keys that sign links. The first one signs; all of them are accepted.
pub(crate) struct Links(Vec<hmac::Key>);

/// A link that a request presents.
pub(super) struct Presented {
    id: BlobId,
    parameters: Vec<(String, String)>,
    signature: String,
}

impl Links {
    /// The keys in this file, one per line.
    pub(super) fn read(path: &Path) -> Result<Links> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io_at("cannot read the keys of links in", path, error))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<&str> = lines.collect();
        if keys.is_empty() || keys.iter().any(|key| key.len() < SHORTEST_KEY) {
            let why =
                format!("{shown} has no key for links, or one that is shorter than {SHORTEST_KEY} bytes");
            return Err(Error::new(Code::Config, why)
                .with_advice("write a key on each line, such as the output of `openssl rand -hex 32`"));
        }
        let key = |text: &&str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        Ok(Links(keys.iter().map(key).collect()))
    }

    /// The query of a link to this blob with these parameters, which expires at this second since 1970.
    pub(crate) fn query(&self, id: &BlobId, mut parameters: Vec<(String, String)>, expires: i64) -> String {
        parameters.push((EXPIRES.to_owned(), expires.to_string()));
        let text = signed_text(id, &mut parameters);
        let signature = self.0.first().map(|key| hmac::sign(key, text.as_bytes()));
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref().map_or(&[][..], AsRef::as_ref));
        let mut query = Serializer::new(String::new());
        query.extend_pairs(parameters).append_pair(SIGNATURE, &signature).finish()
    }

    /// Fails unless the link was made with one of the keys, and has not expired.
    pub(super) fn check(&self, link: &mut Presented) -> Result<(), Problem> {
        let text = signed_text(&link.id, &mut link.parameters);
        let signature = URL_SAFE_NO_PAD.decode(&link.signature).unwrap_or_default();
        // Compares in constant time.
        if !self.0.iter().any(|key| hmac::verify(key, text.as_bytes(), &signature).is_ok()) {
            return Err(refused("this is not a link of this server, or its key is used no more"));
        }
        let expires = link.parameters.iter().find(|(name, _)| name == EXPIRES);
        match expires.and_then(|(_, seconds)| seconds.parse::<i64>().ok()) {
            Some(seconds) if now() < seconds.saturating_mul(1_000) => Ok(()),
            _ => Err(refused("this link has expired")),
        }
    }
}

impl Presented {
    /// The link that this request presents, if it presents one.
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Presented> {
        let id = uri.path().strip_prefix("/api/blobs/").filter(|id| !id.contains('/'))?;
        // Most requests have no parameters.
        let query = uri.query().filter(|_| matches!(*method, Method::GET | Method::HEAD))?;
        let (signatures, parameters): (Vec<_>, Vec<_>) =
            form_urlencoded::parse(query.as_bytes()).into_owned().partition(|(name, _)| name == SIGNATURE);
        let (_, signature) = signatures.into_iter().next()?;
        let id = percent_decode_str(id).decode_utf8().ok()?.parse().ok()?;
        Some(Presented { id, parameters, signature })
    }
}

/// The problem for a link that is refused.
pub(super) fn refused(why: &str) -> Problem {
    Problem::new(Code::Unauthorized, format!("{why}; ask for a new one where you got it"))
}

/// The signed text. It does not depend on the spelling of the address.
fn signed_text(id: &BlobId, parameters: &mut [(String, String)]) -> String {
    parameters.sort();
    let mut text = Serializer::for_suffix(format!("graviton link\n{id}\n"), 0);
    // `&`, `=` and line feeds are escaped, so no name or value can end early.
    text.extend_pairs(parameters.iter()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lines: &str) -> Result<Links> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        Links::read(file.path())
    }

    fn key(letter: char) -> String {
        letter.to_string().repeat(SHORTEST_KEY)
    }

    fn id(content: &[u8]) -> BlobId {
        BlobId::of(graviton_core::Algo::Blake3, content)
    }

    fn check(links: &Links, address: &str) -> Option<bool> {
        let uri: Uri = address.parse().unwrap();
        Presented::of(&Method::GET, &uri).map(|mut link| links.check(&mut link).is_ok())
    }

    #[test]
    fn a_link_allows_what_it_says_until_it_expires() {
        let links = keys(&key('k')).unwrap();
        let (hello, soon) = (id(b"hello"), now() / 1_000 + 60);
        let named =
            vec![("type".to_owned(), "image/png".to_owned()), ("filename".into(), "a&b=c.png".into())];
        let query = links.query(&hello, named, soon);
        let address = format!("/api/blobs/{hello}?{query}");
        assert_eq!(check(&links, &address), Some(true), "{address}");
        // The same link, spelled differently.
        let (mut turned, escaped): (Vec<&str>, _) =
            (query.split('&').collect(), hello.to_string().replace(':', "%3A"));
        turned.reverse();
        assert_eq!(check(&links, &format!("/api/blobs/{escaped}?{}", turned.join("&"))), Some(true));
        for changed in [
            address.replace("image%2Fpng", "text%2Fplain"),
            address.replace(&soon.to_string(), &(soon + 1).to_string()),
            address.replace(&hello.to_string(), &id(b"other").to_string()),
            address.replace("&filename=", "&filename=x&filename="),
            format!("{address}&disposition=inline"),
            format!("{address}x"),
            address[..address.len() - 1].to_owned(),
            format!("/api/blobs/{hello}?expires={soon}&signature="),
        ] {
            assert_eq!(check(&links, &changed), Some(false), "{changed}");
        }
        for expired in [soon - 61, 0, -1, i64::MIN] {
            let query = links.query(&hello, Vec::new(), expired);
            assert_eq!(check(&links, &format!("/api/blobs/{hello}?{query}")), Some(false), "{query}");
        }
        assert_eq!(
            check(&links, &format!("/api/blobs/{hello}?{}", links.query(&hello, Vec::new(), i64::MAX))),
            Some(true)
        );
    }

    #[test]
    fn other_requests_present_no_link() {
        let hello = id(b"hello");
        for (method, address) in [
            (Method::GET, format!("/api/blobs/{hello}")),
            (Method::GET, format!("/api/blobs/{hello}?type=image/png")),
            (Method::DELETE, format!("/api/blobs/{hello}?signature=x")),
            (Method::GET, format!("/api/blobs/{hello}/manifest?signature=x")),
            (Method::GET, "/api/blobs/nonsense?signature=x".to_owned()),
            (Method::GET, "/api/blobs?signature=x".to_owned()),
        ] {
            assert!(Presented::of(&method, &address.parse().unwrap()).is_none(), "{address}");
        }
    }

    #[test]
    fn keys_come_and_go() {
        let (old, both) =
            (keys(&key('a')).unwrap(), keys(&format!("# new\n{}\n\n{}\n", key('b'), key('a'))).unwrap());
        let new = keys(&key('b')).unwrap();
        let hello = id(b"hello");
        let link =
            |links: &Links| format!("/api/blobs/{hello}?{}", links.query(&hello, Vec::new(), i64::MAX));
        assert_eq!((check(&both, &link(&old)), check(&both, &link(&new))), (Some(true), Some(true)));
        assert_eq!((check(&new, &link(&both)), check(&new, &link(&old))), (Some(true), Some(false)));
        for bad in ["", "# none\n", "short", &format!("{}\nshort\n", key('a'))] {
            assert_eq!(keys(bad).err().unwrap().code(), Code::Config, "{bad:?}");
        }
    }
}
