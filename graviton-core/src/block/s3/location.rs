//! The location of blocks in S3: the bucket, the server, the prefix, and the credentials.
//!
//! Plain data, checked when it is created. The errors name the settings that the values came from, which have
//! the same names in every language.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use url::Url;

use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::place::PackName;

/// A key of S3 has at most 1,024 bytes; this leaves room for an algorithm, a digest and a size.
const MOST_PREFIX_BYTES: usize = 900;

/// Where blocks are in S3, and how to get there.
#[derive(Debug, Clone)]
pub struct S3Location {
    bucket: String,
    /// Without a slash at either end; may be empty.
    prefix: String,
    region: Option<String>,
    server: Option<S3Server>,
    /// A file with certificates of authorities to trust besides the system's.
    authorities: Option<PathBuf>,
    /// Whether the bucket is a part of the host name, and not of the path. AWS's own buckets are found by
    /// what the `AWS_*` variables say.
    virtual_host: bool,
}

/// A server of one's own, such as MinIO, with the credentials for it.
#[derive(Clone)]
pub struct S3Server {
    endpoint: String,
    user: String,
    password: String,
}

impl S3Location {
    /// Objects under the prefix (which may be empty or end with a slash) in the bucket. The server, the
    /// credentials and the region are those of AWS, as the standard `AWS_*` variables say.
    pub fn new(bucket: &str, prefix: &str) -> Result<S3Location> {
        check_bucket(bucket)?;
        let prefix = check_prefix(prefix)?;
        Ok(S3Location {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: None,
            server: None,
            authorities: None,
            virtual_host: false,
        })
    }

    /// The same at this server, whose URL does not name the bucket.
    pub fn at(self, server: S3Server) -> Result<S3Location> {
        let location = S3Location { server: Some(server), ..self };
        location.check_path()?;
        Ok(location)
    }

    /// The same in this region.
    #[must_use]
    pub fn in_region(self, region: &str) -> S3Location {
        S3Location { region: Some(region.to_owned()), ..self }
    }

    /// The same, trusting the authorities in this PEM file besides those of the system.
    #[must_use]
    pub fn trusting(self, authorities: impl Into<PathBuf>) -> S3Location {
        S3Location { authorities: Some(authorities.into()), ..self }
    }

    /// The same with the bucket in the host name of the server, as `bucket.host`, and not in the path.
    #[must_use]
    pub fn with_virtual_host(self) -> S3Location {
        S3Location { virtual_host: true, ..self }
    }

    /// Fails if the URL of the server already has the bucket in it.
    fn check_path(&self) -> Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        let path = Url::parse(&server.endpoint).map(|url| url.path().to_owned()).unwrap_or_default();
        let ends = |name: &str| path.ends_with(&format!("/{name}"));
        if !ends(&self.bucket) && !ends(&self.path()) {
            return Ok(());
        }
        let advice = "name the bucket with GRAVITON_S3_BLOCK_BUCKET and the prefix with GRAVITON_S3_BLOCK_PREFIX alone";
        Err(wrong("QUASAR_MINIO_URL", &server.endpoint, "it ends with the bucket", advice))
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(super) fn server(&self) -> Option<&S3Server> {
        self.server.as_ref()
    }

    pub(super) fn authorities(&self) -> Option<&FilePath> {
        self.authorities.as_deref()
    }

    /// The URL that requests to this server begin with, if the bucket is a part of its host name.
    pub(super) fn virtual_endpoint(&self, server: &S3Server) -> Result<Option<String>> {
        if !self.virtual_host {
            return Ok(None);
        }
        let (scheme, host) = server.endpoint().split_once("://").unwrap_or(("https", server.endpoint()));
        let is_number = Url::parse(server.endpoint()).is_ok_and(|url| url.domain().is_none());
        // A host name has no capitals: another bucket would be meant.
        let is_no_label = |letter: char| letter == '_' || letter.is_ascii_uppercase();
        if is_number || self.bucket.contains(is_no_label) {
            let why = format!("{} cannot be a part of the host name of {host}", self.bucket);
            return Err(Error::new(Code::Config, why)
                .with_advice("set GRAVITON_S3_ADDRESSING to path, or give the server a name"));
        }
        Ok(Some(format!("{scheme}://{}.{host}", self.bucket)))
    }

    /// The key of a block's object.
    pub fn key_of(&self, key: &BlockKey) -> String {
        self.under_prefix(&format!("{}/{}", key.algo().name(), key.name()))
    }

    /// The key of a pack's object, or without a name the beginning of all of them. It is beside the prefix of
    /// the blocks, which other programs list.
    pub(super) fn key_of_pack(&self, name: Option<&PackName>) -> String {
        let directory =
            if self.prefix.is_empty() { "packs".to_owned() } else { format!("{}-packs", self.prefix) };
        name.map_or_else(|| format!("{directory}/"), |name| format!("{directory}/{name}"))
    }

    pub(super) fn under_prefix(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// The bucket and the prefix, joined.
    pub(super) fn path(&self) -> String {
        if self.prefix.is_empty() { self.bucket.clone() } else { format!("{}/{}", self.bucket, self.prefix) }
    }
}

impl S3Server {
    /// The server at this URL: `http` or `https`, a host, perhaps a port, perhaps the path under which a
    /// gateway has it.
    pub fn new(url: &str, user: &str, password: &str) -> Result<S3Server> {
        Ok(S3Server { endpoint: check_url(url)?, user: user.to_owned(), password: password.to_owned() })
    }

    /// Its URL in the one form in which it is written everywhere.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn wrong(name: &str, value: &str, why: &str, advice: &str) -> Error {
    Error::new(Code::Config, format!("{name} cannot be {value:?}: {why}")).with_advice(advice)
}

/// The same server always gives the same text: lower case, no default port, no slash at the end. A path is
/// kept: some gateways have S3 under one.
pub(crate) fn check_url(value: &str) -> Result<String> {
    const NAME: &str = "QUASAR_MINIO_URL";
    const EXAMPLE: &str = "use a URL such as http://localhost:9000";
    // A value with an @ may hold a password, even if it is no URL.
    if value.contains('@') {
        return Err(Error::new(
            Code::Config,
            format!("{NAME} holds credentials, or an @ that is out of place"),
        )
        .with_advice("put the credentials into MINIO_ROOT_USER and MINIO_ROOT_PASSWORD"));
    }
    let url = Url::parse(value).map_err(|_| wrong(NAME, value, "it is no URL", EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong(NAME, value, "it does not begin with http:// or https:// and a host", EXAMPLE));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(NAME, value, "it has a query or a fragment", EXAMPLE));
    }
    let path = url.path().trim_end_matches('/');
    // An escape would be escaped a second time, and an empty part means another path.
    if path.contains("//") || path.contains('%') {
        return Err(wrong(
            NAME,
            value,
            "its path has characters that are escaped, or an empty part",
            EXAMPLE,
        ));
    }
    Ok(format!("{}{path}", url.origin().ascii_serialization()))
}

/// The rules of S3, with the capitals and underscores that old buckets and other servers may have.
pub(crate) fn check_bucket(value: &str) -> Result<()> {
    let possible = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let at_the_ends = |letter: char| letter.is_ascii_alphanumeric();
    if (3..=63).contains(&value.len())
        && value.chars().all(possible)
        && value.starts_with(at_the_ends)
        && value.ends_with(at_the_ends)
        && !value.contains("..")
    {
        return Ok(());
    }
    Err(wrong(
        "GRAVITON_S3_BLOCK_BUCKET",
        value,
        "it is no name of a bucket",
        "use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends",
    ))
}

/// The prefix without the slash that it may end with.
pub(crate) fn check_prefix(value: &str) -> Result<&str> {
    const ADVICE: &str = "use names with / between them, such as cas/blocks, or / alone for no prefix";
    let refused = |why| Err(wrong("GRAVITON_S3_BLOCK_PREFIX", value, why, ADVICE));
    let prefix = value.strip_suffix('/').unwrap_or(value);
    if prefix.is_empty() {
        return Ok(prefix);
    }
    if prefix.len() > MOST_PREFIX_BYTES {
        return refused("it is too long");
    }
    if prefix.chars().any(char::is_control) {
        return refused("it has a control character");
    }
    if prefix.starts_with('/') {
        return refused("it begins with a slash");
    }
    if prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refused("a part of it is empty, . or ..");
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algo;

    fn location(prefix: &str) -> S3Location {
        S3Location::new("graviton-blocks", prefix).unwrap()
    }

    #[test]
    fn keys_are_exactly_those_of_the_layout() {
        let key = BlockKey::of(Algo::Blake3, b"x").unwrap();
        let name = format!("blake3/{}-1", key.digest());
        assert_eq!(location("cas/blocks").key_of(&key), format!("cas/blocks/{name}"));
        assert_eq!(location("cas/blocks/").key_of(&key), format!("cas/blocks/{name}"));
        assert_eq!(location("ü/a b~").key_of(&key), format!("ü/a b~/{name}"));
        for none in ["", "/"] {
            assert_eq!(location(none).key_of(&key), name);
            assert_eq!(location(none).under_prefix("store-id"), "store-id");
            assert_eq!(location(none).path(), "graviton-blocks");
        }
        assert_eq!(location("a/").path(), "graviton-blocks/a");
        let pack = PackName::from_bytes([7; 16]);
        assert_eq!(location("cas/blocks").key_of_pack(Some(&pack)), format!("cas/blocks-packs/{pack}"));
        assert_eq!(location("").key_of_pack(Some(&pack)), format!("packs/{pack}"));
        assert_eq!(location("a").key_of_pack(None), "a-packs/");
    }

    #[test]
    fn a_prefix_that_leads_elsewhere_is_refused() {
        for prefix in ["..", "a/../b", "./a", "a//b", "//", "a//", "/a", "a\nb", "a\u{7f}", &"x".repeat(901)]
        {
            let error = S3Location::new("bucket", prefix).unwrap_err();
            assert_eq!(error.code(), Code::Config, "{prefix:?}");
            assert!(error.to_string().contains("GRAVITON_S3_BLOCK_PREFIX"), "{error}");
        }
    }

    #[test]
    fn only_names_of_buckets_are_taken() {
        for bucket in ["", "ab", "-abc", "abc-", "a..b", "a/b", "a b", "ü-bucket", "a\0b", &"x".repeat(64)] {
            let error = S3Location::new(bucket, "").unwrap_err();
            assert_eq!(error.code(), Code::Config, "{bucket:?}");
            assert!(error.to_string().contains("GRAVITON_S3_BLOCK_BUCKET"), "{error}");
        }
        for bucket in ["abc", "a.b-c", "Old_Bucket", &"x".repeat(63)] {
            S3Location::new(bucket, "").unwrap();
        }
    }

    #[test]
    fn a_server_has_one_name() {
        for (url, endpoint) in [
            ("http://localhost:9000", "http://localhost:9000"),
            ("HTTP://LocalHost:9000/", "http://localhost:9000"),
            ("https://s3.example.com:443", "https://s3.example.com"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("https://h/storage/v1/s3/", "https://h/storage/v1/s3"),
        ] {
            assert_eq!(S3Server::new(url, "u", "p").unwrap().endpoint(), endpoint);
        }
        for url in [
            "",
            "localhost:9000",
            "ftp://h",
            "http://",
            "http://h:99999",
            "http://h//a",
            "http://h/a%20b",
            "http://h/a?b",
        ] {
            let error = S3Server::new(url, "u", "p").unwrap_err();
            assert_eq!(error.code(), Code::Config, "{url}");
            assert!(error.to_string().contains("QUASAR_MINIO_URL"), "{error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        for url in ["http://u:secret@h:9000", "http://u:sec ret@h", "://u:secret@h", "http://secret@h"] {
            let error = S3Server::new(url, "u", "p").unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.advice());
            assert!(!shown.contains("sec"), "{shown}");
        }
        let server = S3Server::new("http://h", "user", "secret").unwrap();
        assert!(!format!("{server:?} {:?}", location("").at(server.clone()).unwrap()).contains("secret"));
    }
}
