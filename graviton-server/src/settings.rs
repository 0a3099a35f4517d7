//! The settings of the HTTP server: the `GRAVITON_HTTP_*` names, which are the server's and not the library's.
//!
//! A [`Settings`] is plain data, checked when it is made. Names and texts come from the environment and from `--set`;
//! an unknown `GRAVITON_HTTP_*` name is an error in both, for a misspelt limit or token file would leave a door open.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use graviton_core::{Code, Error, Result};
use http::HeaderValue;

use graviton_core::quantity;

/// What every name of the server begins with.
pub const PREFIX: &str = "GRAVITON_HTTP_";

/// A setting that exists.
#[derive(Debug)]
pub struct Setting {
    /// Its name, in the environment and for `--set`.
    pub name: &'static str,
    /// Its value if it is not set; empty if there is none.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// All settings of the server, in the order in which they are documented.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("GRAVITON_HTTP_ADDR", "127.0.0.1", "the address to listen on; any but loopback needs authentication"),
    setting("GRAVITON_HTTP_PORT", "8081", "the port; 0 for any that is free"),
    setting("GRAVITON_HTTP_INSECURE", "false", "listen anywhere without authentication, as --insecure does"),
    setting("GRAVITON_HTTP_TLS_CERT", "", "PEM file with the certificate chain; with the key, only TLS is spoken"),
    setting("GRAVITON_HTTP_TLS_KEY", "", "PEM file with its private key"),
    setting("GRAVITON_HTTP_TOKENS", "", "file of bearer tokens, as `graviton-server token` writes it; read again on SIGHUP"),
    setting("GRAVITON_HTTP_JWT_KEY", "", "file with the key that JSON web tokens are checked with: PEM, or the secret of HS256"),
    setting("GRAVITON_HTTP_JWT_ALGORITHM", "", "HS256, RS256, ES256 or EdDSA"),
    setting("GRAVITON_HTTP_JWT_ISSUER", "", "what their `iss` has to be"),
    setting("GRAVITON_HTTP_JWT_AUDIENCE", "", "what their `aud` has to be or hold"),
    setting("GRAVITON_HTTP_RATE", "0", "requests a second of one token, or of one address where there are none; 0 for any number"),
    setting("GRAVITON_HTTP_BURST", "100", "so many requests at once before that rate counts"),
    setting("GRAVITON_HTTP_QUOTA", "", "no upload begins or goes on once so much is stored, such as 500GiB; several servers on one store know of each other's uploads 5 s after these have ended, or 1 s close to the quota, and may exceed it by what comes in between"),
    setting("GRAVITON_HTTP_MAX_BODY", "1TiB", "the largest upload"),
    setting("GRAVITON_HTTP_MAX_HEADERS", "32KiB", "the largest head of a request, at least 8KiB"),
    setting("GRAVITON_HTTP_MAX_CONNECTIONS", "4096", "connections at once; one more is answered 503 and closed"),
    setting("GRAVITON_HTTP_MAX_STREAMS", "100", "requests at once on one HTTP/2 connection"),
    setting("GRAVITON_HTTP_MAX_UPLOADS", "64", "uploads of more than 512 KiB at once, and commits of blobs of blocks; more wait, and are answered 503"),
    setting("GRAVITON_HTTP_MAX_UPLOADS_EACH", "48", "so many of them for one token, or for one address where there are none"),
    setting("GRAVITON_HTTP_MEMORY", "512MiB", "bytes of requests and blobs held at once, a quarter of it for what comes in; who finds none waits, and is answered 503. Besides: 8 MiB for each upload of MAX_UPLOADS, 64 MiB for all of them, and the buffers of connections"),
    setting("GRAVITON_HTTP_HEADER_TIMEOUT", "15s", "for the TLS handshake, and for the head of a request, from the end of the one before on HTTP/1.1; then the connection is closed"),
    setting("GRAVITON_HTTP_BODY_TIMEOUT", "30s", "without a byte of an upload that was begun"),
    setting("GRAVITON_HTTP_BODY_RATE", "1KiB", "bytes a second that an upload brings at least, in each body timeout; 4 times as many, 4 times as soon, while others wait for its place"),
    setting("GRAVITON_HTTP_IDLE_TIMEOUT", "60s", "without a request, or without a client taking what it asked for; a quarter of that while others wait for memory"),
    setting("GRAVITON_HTTP_DRAIN", "30s", "for requests under way to end after SIGTERM"),
    setting("GRAVITON_HTTP_HOSTS", "", "names that a server on loopback without authentication answers to beside localhost and addresses, with commas between them"),
    setting("GRAVITON_HTTP_CORS", "", "origins whose pages may use the server, with commas between them, or *"),
    setting("GRAVITON_HTTP_LOG", "info", "error, warn, info, debug or trace; info has a line for each request"),
    setting("GRAVITON_HTTP_LOG_FORMAT", "text", "text or json"),
];

/// How the server listens, whom it serves, and how much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether to listen beyond loopback without authentication.
    pub insecure: bool,
    /// Certificate chain and private key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// How JSON web tokens are checked.
    pub jwt: Option<JwtSettings>,
    /// What is allowed, and for how long.
    pub limits: Limits,
    /// Names under which a server on loopback without authentication is asked, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may use the server; empty for none.
    pub cors: Vec<HeaderValue>,
    /// What is logged: a level.
    pub log: String,
    /// Whether the log is JSON.
    pub log_json: bool,
}

/// How JSON web tokens are checked.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// File with the key.
    pub key: PathBuf,
    /// `HS256`, `RS256`, `ES256` or `EdDSA`.
    pub algorithm: String,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to be or hold.
    pub audience: Option<String>,
}

/// What is allowed, and for how long.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the table of settings says what each is")]
pub struct Limits {
    pub rate: u32,
    pub burst: u32,
    pub quota: Option<u64>,
    pub max_body: u64,
    pub max_headers: usize,
    pub max_connections: usize,
    pub max_streams: u32,
    pub max_uploads: usize,
    pub max_uploads_each: usize,
    pub memory: u64,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub body_rate: u64,
    pub idle_timeout: Duration,
    pub drain: Duration,
}

impl Settings {
    /// What the environment says, then these pairs of name and value, and the defaults for the rest.
    pub fn from_env_and(pairs: &[(String, String)]) -> Result<Settings> {
        let mut values = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if value.is_empty() {
                continue;
            }
            let value =
                value.into_string().map_err(|_| wrong(name, "it is not Unicode text", "use plain text"))?;
            values.push((name.to_owned(), value));
        }
        values.extend_from_slice(pairs);
        Settings::new(&values)
    }

    /// These pairs of name and value, and the defaults for the rest. The last one of a name counts.
    pub fn new(pairs: &[(String, String)]) -> Result<Settings> {
        let mut values: BTreeMap<&'static str, &str> =
            SETTINGS.iter().map(|setting| (setting.name, setting.default)).collect();
        for (name, value) in pairs {
            let known = SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| unknown(name))?;
            values.insert(known.name, value);
        }
        Values(values).settings()
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    Error::new(Code::Config, format!("{name:?} is not a setting of the server"))
        .with_advice(format!("its settings are {}", known.join(", ")))
}

fn wrong(name: &str, why: &str, advice: &str) -> Error {
    Error::new(Code::Config, format!("{name} cannot be used: {why}")).with_advice(advice)
}

struct Values<'a>(BTreeMap<&'static str, &'a str>);

impl Values<'_> {
    fn settings(&self) -> Result<Settings> {
        let address: IpAddr =
            self.parsed("GRAVITON_HTTP_ADDR", "it is no IP address", "use one such as 127.0.0.1 or ::1")?;
        let port: u16 = self.parsed("GRAVITON_HTTP_PORT", "it is no port", "use a number from 0 to 65535")?;
        Ok(Settings {
            address: SocketAddr::new(address, port),
            insecure: self.truth("GRAVITON_HTTP_INSECURE")?,
            tls: self
                .both("GRAVITON_HTTP_TLS_CERT", "GRAVITON_HTTP_TLS_KEY")?
                .map(|(cert, key)| (cert.into(), key.into())),
            tokens: self.text("GRAVITON_HTTP_TOKENS").map(PathBuf::from),
            jwt: self.jwt()?,
            limits: Limits {
                rate: self.number("GRAVITON_HTTP_RATE", 0)?,
                burst: self.number("GRAVITON_HTTP_BURST", 1)?,
                quota: self
                    .text("GRAVITON_HTTP_QUOTA")
                    .map(|_| self.bytes("GRAVITON_HTTP_QUOTA"))
                    .transpose()?,
                max_body: self.bytes("GRAVITON_HTTP_MAX_BODY")?,
                max_headers: self.head_size("GRAVITON_HTTP_MAX_HEADERS")?,
                max_connections: self.number("GRAVITON_HTTP_MAX_CONNECTIONS", 1)? as usize,
                max_streams: self.number("GRAVITON_HTTP_MAX_STREAMS", 1)?,
                max_uploads: self.number("GRAVITON_HTTP_MAX_UPLOADS", 1)? as usize,
                max_uploads_each: self.number("GRAVITON_HTTP_MAX_UPLOADS_EACH", 1)? as usize,
                memory: self.memory("GRAVITON_HTTP_MEMORY")?,
                header_timeout: self.duration("GRAVITON_HTTP_HEADER_TIMEOUT")?,
                body_timeout: self.duration("GRAVITON_HTTP_BODY_TIMEOUT")?,
                body_rate: self.bytes("GRAVITON_HTTP_BODY_RATE")?,
                idle_timeout: self.duration("GRAVITON_HTTP_IDLE_TIMEOUT")?,
                drain: self.duration("GRAVITON_HTTP_DRAIN")?,
            },
            hosts: self.text("GRAVITON_HTTP_HOSTS").map_or_else(Vec::new, |hosts| {
                hosts.split(',').map(|host| host.trim().to_ascii_lowercase()).collect()
            }),
            cors: self.cors("GRAVITON_HTTP_CORS")?,
            log: self.one_of("GRAVITON_HTTP_LOG", &["error", "warn", "info", "debug", "trace"])?,
            log_json: self.one_of("GRAVITON_HTTP_LOG_FORMAT", &["text", "json"])? == "json",
        })
    }

    fn jwt(&self) -> Result<Option<JwtSettings>> {
        let Some((key, algorithm)) = self.both("GRAVITON_HTTP_JWT_KEY", "GRAVITON_HTTP_JWT_ALGORITHM")?
        else {
            for name in ["GRAVITON_HTTP_JWT_ISSUER", "GRAVITON_HTTP_JWT_AUDIENCE"] {
                if self.text(name).is_some() {
                    return Err(wrong(name, "GRAVITON_HTTP_JWT_KEY is not set", "set both, or neither"));
                }
            }
            return Ok(None);
        };
        self.one_of("GRAVITON_HTTP_JWT_ALGORITHM", &["HS256", "RS256", "ES256", "EdDSA"])?;
        Ok(Some(JwtSettings {
            key: key.into(),
            algorithm: algorithm.to_owned(),
            issuer: self.text("GRAVITON_HTTP_JWT_ISSUER").map(str::to_owned),
            audience: self.text("GRAVITON_HTTP_JWT_AUDIENCE").map(str::to_owned),
        }))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied().filter(|value| !value.is_empty())
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn both(&self, first: &str, second: &str) -> Result<Option<(&str, &str)>> {
        match (self.text(first), self.text(second)) {
            (Some(one), Some(two)) => Ok(Some((one, two))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(wrong(first, &format!("{second} is not set"), "set both, or neither")),
            (None, Some(_)) => Err(wrong(second, &format!("{first} is not set"), "set both, or neither")),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, why: &str, advice: &str) -> Result<T> {
        self.value(name).parse().map_err(|_| wrong(name, why, advice))
    }

    fn number(&self, name: &str, least: u32) -> Result<u32> {
        match self.value(name).parse() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(wrong(name, "it is not such a number", &format!("use a whole number, {least} or more"))),
        }
    }

    fn bytes(&self, name: &str) -> Result<u64> {
        quantity::bytes(self.value(name))
            .map_err(|advice| wrong(name, "it is not an amount of bytes", advice))
    }

    fn head_size(&self, name: &str) -> Result<usize> {
        let bytes = self.bytes(name)?;
        if !(8 << 10..=1 << 20).contains(&bytes) {
            return Err(wrong(name, "it is out of bounds", "use 8KiB to 1MiB"));
        }
        Ok(bytes as usize)
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let bytes = self.bytes(name)?;
        // A quarter of it is to hold the largest block.
        if !(64 << 20..=1 << 40).contains(&bytes) {
            return Err(wrong(name, "it is out of bounds", "use 64MiB to 1TiB"));
        }
        Ok(bytes)
    }

    fn duration(&self, name: &str) -> Result<Duration> {
        match quantity::duration(self.value(name)) {
            Ok(Duration::ZERO) => Err(wrong(name, "nothing can be done in no time", "use at least 1s")),
            Ok(duration) => Ok(duration),
            Err(advice) => Err(wrong(name, "it is not a duration", advice)),
        }
    }

    fn truth(&self, name: &str) -> Result<bool> {
        match self.value(name) {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(name, "it is neither true nor false", "use true or false")),
        }
    }

    fn one_of(&self, name: &str, words: &[&str]) -> Result<String> {
        let value = self.value(name);
        if words.contains(&value) {
            return Ok(value.to_owned());
        }
        Err(wrong(name, "there is no such choice", &format!("use one of {}", words.join(", "))))
    }

    fn cors(&self, name: &str) -> Result<Vec<HeaderValue>> {
        let Some(origins) = self.text(name) else { return Ok(Vec::new()) };
        let parse = |origin: &str| {
            let origin = origin.trim();
            let is_one = origin == "*"
                || origin.split_once("://").is_some_and(|(scheme, rest)| {
                    matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.contains('/')
                });
            let value = HeaderValue::from_str(origin).ok().filter(|_| is_one);
            value.ok_or_else(|| {
                wrong(name, "one of them is no origin", "use the form https://host:port, or *")
            })
        };
        origins.split(',').map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let owned: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::new(&owned)
    }

    #[test]
    fn the_defaults_are_loopback_and_within_what_is_promised() {
        let defaults = settings(&[]).unwrap();
        assert_eq!(defaults.address, "127.0.0.1:8081".parse().unwrap());
        assert!(defaults.limits.header_timeout <= Duration::from_secs(30));
        assert!(defaults.limits.max_connections >= 2_000);
        assert!(
            defaults.cors.is_empty()
                && defaults.tls.is_none()
                && defaults.tokens.is_none()
                && !defaults.insecure
        );
    }

    #[test]
    fn impossible_values_are_named() {
        for (name, value) in [
            ("GRAVITON_HTTP_ADDR", "localhost"),
            ("GRAVITON_HTTP_PORT", "65536"),
            ("GRAVITON_HTTP_INSECURE", "yes"),
            ("GRAVITON_HTTP_TLS_CERT", "x"),
            ("GRAVITON_HTTP_TLS_KEY", "x"),
            ("GRAVITON_HTTP_JWT_KEY", "x"),
            ("GRAVITON_HTTP_JWT_ISSUER", "x"),
            ("GRAVITON_HTTP_RATE", "-1"),
            ("GRAVITON_HTTP_BURST", "0"),
            ("GRAVITON_HTTP_QUOTA", "0"),
            ("GRAVITON_HTTP_MAX_BODY", "1 GB"),
            ("GRAVITON_HTTP_MAX_HEADERS", "1KiB"),
            ("GRAVITON_HTTP_MAX_CONNECTIONS", "0"),
            ("GRAVITON_HTTP_MEMORY", "63MiB"),
            ("GRAVITON_HTTP_HEADER_TIMEOUT", "0"),
            ("GRAVITON_HTTP_CORS", "example.org"),
            ("GRAVITON_HTTP_CORS", "https://a/b"),
            ("GRAVITON_HTTP_LOG", "loud"),
            ("GRAVITON_HTTP_PROT", "80"),
        ] {
            let error = settings(&[(name, value)]).unwrap_err();
            assert_eq!(error.code(), Code::Config, "{name}={value}");
            assert!(error.to_string().contains(name) && error.advice().is_some(), "{error}");
        }
    }

    #[test]
    fn what_came_last_counts() {
        let both = settings(&[("GRAVITON_HTTP_PORT", "1"), ("GRAVITON_HTTP_PORT", "2")]).unwrap();
        assert_eq!(both.address.port(), 2);
        let cors = settings(&[("GRAVITON_HTTP_CORS", "https://a:1, http://b")]).unwrap().cors;
        assert_eq!(cors, ["https://a:1", "http://b"]);
    }
}
