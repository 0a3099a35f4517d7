//! The settings of the HTTP server, all named `GRAVITON_HTTP_*`. The library does not know them.
//!
//! A [`Settings`] is plain data, validated when it is built. Its values come from the environment and from
//! `--set`. An unknown `GRAVITON_HTTP_*` name is an error in both: a misspelt limit or token file would leave
//! the server open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use graviton_core::{Code, Error, Result, Setting};
use http::HeaderValue;
use ipnet::IpNet;

use graviton_core::quantity;

/// The prefix of every setting of the server.
pub const PREFIX: &str = "GRAVITON_HTTP_";

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting::new(name, default, meaning)
}

/// All settings of the server, in the order in which help lists them.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("GRAVITON_HTTP_ADDR", "127.0.0.1", "address to listen on; any address other than loopback requires authentication"),
    setting("GRAVITON_HTTP_PORT", "8081", "port to listen on; 0 picks a free one"),
    setting("GRAVITON_HTTP_INSECURE", "false", "allow any address without authentication, like --insecure"),
    setting("GRAVITON_HTTP_TLS_CERT", "", "PEM file with the certificate chain; together with the key it turns TLS on"),
    setting("GRAVITON_HTTP_TLS_KEY", "", "PEM file with the private key of the certificate"),
    setting("GRAVITON_HTTP_TOKENS", "", "file of bearer tokens, written by `graviton-server token`; SIGHUP reads it again"),
    setting("GRAVITON_HTTP_JWT_KEY", "", "file with the key that verifies JSON Web Tokens: a public key in PEM, or the secret for HS256"),
    setting("GRAVITON_HTTP_JWT_ALGORITHM", "", "algorithm of the JSON Web Tokens: HS256, RS256, ES256 or EdDSA"),
    setting("GRAVITON_HTTP_JWT_ISSUER", "", "required value of the claim `iss`"),
    setting("GRAVITON_HTTP_JWT_AUDIENCE", "", "value that the claim `aud` must be or contain"),
    setting("GRAVITON_HTTP_RATE", "0", "requests per second for each token, or for each address without authentication; 0 means no limit"),
    setting("GRAVITON_HTTP_BURST", "100", "requests allowed at once before the rate applies"),
    setting("GRAVITON_HTTP_QUOTA", "", "stored bytes at which uploads are refused, such as 500GiB; each block of a manifest counts as 100 bytes. Servers that share a store learn of each other's uploads up to 5 s after they end (1 s close to the quota), and may exceed the quota by what arrives in between"),
    setting("GRAVITON_HTTP_MAX_BODY", "1TiB", "largest upload"),
    setting("GRAVITON_HTTP_MAX_HEADERS", "32KiB", "largest size of the request headers, at least 8KiB"),
    setting("GRAVITON_HTTP_MAX_CONNECTIONS", "4096", "most open connections; a further one is answered with 503 and closed"),
    setting("GRAVITON_HTTP_MAX_CONNECTIONS_EACH", "3072", "most of these from one address"),
    setting("GRAVITON_HTTP_MAX_STREAMS", "100", "most concurrent requests on one HTTP/2 connection"),
    setting("GRAVITON_HTTP_MAX_UPLOADS", "64", "most concurrent uploads over 512 KiB and commits of manifests; further ones wait, then are answered with 503"),
    setting("GRAVITON_HTTP_MAX_UPLOADS_EACH", "48", "most of these for one token, or for one address without authentication"),
    setting("GRAVITON_HTTP_MAX_SESSION_BLOCKS", "1000000", "most blocks that the sessions of one token, or of one address without authentication, keep together on this server; each takes some hundred bytes of the database, stored or not"),
    setting("GRAVITON_HTTP_MEMORY", "512MiB", "memory for requests and blobs in transit, a quarter of it for uploads; a request that finds none free waits, then is answered with 503. Not included: 8 MiB for each of MAX_UPLOADS, 64 MiB that they share, and connection buffers"),
    setting("GRAVITON_HTTP_HEADER_TIMEOUT", "15s", "time for the TLS handshake, and for the headers of a request (on HTTP/1.1 from the end of the previous request); then the connection is closed"),
    setting("GRAVITON_HTTP_BODY_TIMEOUT", "30s", "longest time without a byte of an upload in progress"),
    setting("GRAVITON_HTTP_BODY_RATE", "1KiB", "slowest allowed upload in bytes per second, measured over each body timeout; while other uploads wait, four times as fast, over a quarter of the time"),
    setting("GRAVITON_HTTP_IDLE_TIMEOUT", "60s", "longest time without a request, or without the client reading its response; a quarter of it while others wait for memory"),
    setting("GRAVITON_HTTP_DRAIN", "30s", "time for running requests to finish after SIGTERM"),
    setting("GRAVITON_HTTP_DRAIN_DELAY", "0s", "time after SIGTERM in which the server still takes requests, while /api/ready is 503, so that a load balancer can take notice"),
    setting("GRAVITON_HTTP_HOSTS", "", "host names, separated by commas, that a server on loopback without authentication answers to besides localhost and IP addresses"),
    setting("GRAVITON_HTTP_CORS", "", "origins, separated by commas, whose web pages may use the server; * allows all"),
    setting("GRAVITON_HTTP_PREFIX", "", "path under which a proxy publishes the server, such as /store; requests may come with it or without"),
    setting("GRAVITON_HTTP_TRUSTED_PROXIES", "", "addresses or networks, separated by commas, of proxies in front of the server: what they say of a request's client counts"),
    setting("GRAVITON_HTTP_PROXY_HEADERS", "x-forwarded", "the headers in which they say it: x-forwarded for X-Forwarded-For, -Host and -Proto, forwarded for Forwarded (RFC 7239). The proxies must set them, not hand on a client's"),
    setting("GRAVITON_HTTP_LINK_KEYS", "", "file of keys, one a line, that sign links to blobs: the first signs, all are accepted; SIGHUP reads it again. Without it there are no links"),
    setting("GRAVITON_HTTP_LOG", "info", "log level: error, warn, info, debug or trace; info logs each request"),
    setting("GRAVITON_HTTP_LOG_FORMAT", "text", "log format: text or json"),
];

/// How the server listens, whom it serves, and its limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether any address may be used without authentication.
    pub insecure: bool,
    /// Certificate chain and private key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// How JSON Web Tokens are verified.
    pub jwt: Option<JwtSettings>,
    /// Limits on size, number and time.
    pub limits: Limits,
    /// Host names that a server on loopback without authentication answers to, besides `localhost` and IP
    /// addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may use the server; none if empty.
    pub cors: Vec<HeaderValue>,
    /// The path under which a proxy publishes the server; empty, or `/` and a name, without a slash at the
    /// end.
    pub prefix: String,
    /// The trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// The headers that trusted proxies write.
    pub proxy_headers: ProxyHeaders,
    /// The file of keys that sign links.
    pub link_keys: Option<PathBuf>,
    /// The log level.
    pub log: String,
    /// Whether the log is JSON.
    pub log_json: bool,
}

/// The headers in which proxies name the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// How JSON Web Tokens are verified.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// The file with the key.
    pub key: PathBuf,
    /// `HS256`, `RS256`, `ES256` or `EdDSA`.
    pub algorithm: String,
    /// The required `iss`.
    pub issuer: Option<String>,
    /// The value that `aud` must be or contain.
    pub audience: Option<String>,
}

/// Limits on size, number and time.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the table of settings explains each")]
pub struct Limits {
    pub rate: u32,
    pub burst: u32,
    pub quota: Option<u64>,
    pub max_body: u64,
    pub max_headers: usize,
    pub max_connections: usize,
    pub max_connections_each: usize,
    pub max_streams: u32,
    pub max_uploads: usize,
    pub max_uploads_each: usize,
    pub max_session_blocks: u32,
    pub memory: u64,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub body_rate: u64,
    pub idle_timeout: Duration,
    pub drain: Duration,
    pub drain_delay: Duration,
}

impl Settings {
    /// The environment, overridden by these pairs of name and value, and the defaults for the rest.
    pub fn from_env_and(pairs: Vec<(String, OsString)>) -> Result<Settings> {
        let of_env = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            (!value.is_empty()).then_some((name, value))
        });
        let text = |(name, value): (String, OsString)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(invalid(&name, "the value is not valid UTF-8", "use plain text")),
        };
        Settings::new(&of_env.chain(pairs).map(text).collect::<Result<Vec<_>>>()?)
    }

    /// These pairs of name and value, and the defaults for the rest. The last pair of a name wins.
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
    Error::new(Code::Config, format!("unknown server setting {name:?}"))
        .with_advice(format!("the settings are {}", known.join(", ")))
}

fn invalid(name: &str, why: &str, advice: &str) -> Error {
    Error::new(Code::Config, format!("invalid {name}: {why}")).with_advice(advice)
}

struct Values<'a>(BTreeMap<&'static str, &'a str>);

impl Values<'_> {
    fn settings(&self) -> Result<Settings> {
        let address: IpAddr = self.parsed(
            "GRAVITON_HTTP_ADDR",
            "not an IP address",
            "use an address such as 127.0.0.1 or ::1",
        )?;
        let port: u16 =
            self.parsed("GRAVITON_HTTP_PORT", "not a port number", "use a number from 0 to 65535")?;
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
                max_connections_each: self.number("GRAVITON_HTTP_MAX_CONNECTIONS_EACH", 1)? as usize,
                max_streams: self.number("GRAVITON_HTTP_MAX_STREAMS", 1)?,
                max_uploads: self.number("GRAVITON_HTTP_MAX_UPLOADS", 1)? as usize,
                max_uploads_each: self.number("GRAVITON_HTTP_MAX_UPLOADS_EACH", 1)? as usize,
                max_session_blocks: self.number("GRAVITON_HTTP_MAX_SESSION_BLOCKS", 1)?,
                memory: self.memory("GRAVITON_HTTP_MEMORY")?,
                header_timeout: self.duration("GRAVITON_HTTP_HEADER_TIMEOUT")?,
                body_timeout: self.duration("GRAVITON_HTTP_BODY_TIMEOUT")?,
                body_rate: self.bytes("GRAVITON_HTTP_BODY_RATE")?,
                idle_timeout: self.duration("GRAVITON_HTTP_IDLE_TIMEOUT")?,
                drain: self.duration("GRAVITON_HTTP_DRAIN")?,
                drain_delay: self.duration_or_none("GRAVITON_HTTP_DRAIN_DELAY")?,
            },
            hosts: self.text("GRAVITON_HTTP_HOSTS").map_or_else(Vec::new, |hosts| {
                hosts.split(',').map(|host| host.trim().to_ascii_lowercase()).collect()
            }),
            cors: self.cors("GRAVITON_HTTP_CORS")?,
            prefix: self.path_prefix("GRAVITON_HTTP_PREFIX")?,
            trusted_proxies: self.networks("GRAVITON_HTTP_TRUSTED_PROXIES")?,
            proxy_headers: match &*self
                .one_of("GRAVITON_HTTP_PROXY_HEADERS", &["x-forwarded", "forwarded"])?
            {
                "forwarded" => ProxyHeaders::Forwarded,
                _ => ProxyHeaders::XForwarded,
            },
            link_keys: self.text("GRAVITON_HTTP_LINK_KEYS").map(PathBuf::from),
            log: self.one_of("GRAVITON_HTTP_LOG", &["error", "warn", "info", "debug", "trace"])?,
            log_json: self.one_of("GRAVITON_HTTP_LOG_FORMAT", &["text", "json"])? == "json",
        })
    }

    fn jwt(&self) -> Result<Option<JwtSettings>> {
        let Some((key, algorithm)) = self.both("GRAVITON_HTTP_JWT_KEY", "GRAVITON_HTTP_JWT_ALGORITHM")?
        else {
            for name in ["GRAVITON_HTTP_JWT_ISSUER", "GRAVITON_HTTP_JWT_AUDIENCE"] {
                if self.text(name).is_some() {
                    return Err(invalid(name, "GRAVITON_HTTP_JWT_KEY is not set", "set both or neither"));
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
            (Some(_), None) => Err(invalid(first, &format!("{second} is not set"), "set both or neither")),
            (None, Some(_)) => Err(invalid(second, &format!("{first} is not set"), "set both or neither")),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, why: &str, advice: &str) -> Result<T> {
        self.value(name).parse().map_err(|_| invalid(name, why, advice))
    }

    fn number(&self, name: &str, least: u32) -> Result<u32> {
        match self.value(name).parse() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(invalid(
                name,
                "not a number in the allowed range",
                &format!("use a whole number, {least} or more"),
            )),
        }
    }

    fn bytes(&self, name: &str) -> Result<u64> {
        quantity::bytes(self.value(name)).map_err(|advice| invalid(name, "not a number of bytes", advice))
    }

    fn head_size(&self, name: &str) -> Result<usize> {
        let bytes = self.bytes(name)?;
        if !(8 << 10..=1 << 20).contains(&bytes) {
            return Err(invalid(name, "out of range", "use 8KiB to 1MiB"));
        }
        Ok(bytes as usize)
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let bytes = self.bytes(name)?;
        // A quarter of the memory must hold the largest block.
        if !(64 << 20..=1 << 40).contains(&bytes) {
            return Err(invalid(name, "out of range", "use 64MiB to 1TiB"));
        }
        Ok(bytes)
    }

    fn duration(&self, name: &str) -> Result<Duration> {
        match self.duration_or_none(name)? {
            Duration::ZERO => Err(invalid(name, "must not be zero", "use at least 1s")),
            duration => Ok(duration),
        }
    }

    fn duration_or_none(&self, name: &str) -> Result<Duration> {
        quantity::duration(self.value(name)).map_err(|advice| invalid(name, "not a duration", advice))
    }

    fn truth(&self, name: &str) -> Result<bool> {
        match self.value(name) {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(invalid(name, "neither true nor false", "use true or false")),
        }
    }

    fn one_of(&self, name: &str, words: &[&str]) -> Result<String> {
        let value = self.value(name);
        if words.contains(&value) {
            return Ok(value.to_owned());
        }
        Err(invalid(name, "not one of the choices", &format!("use one of {}", words.join(", "))))
    }

    fn path_prefix(&self, name: &str) -> Result<String> {
        let Some(prefix) = self.text(name) else { return Ok(String::new()) };
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
        let is_name = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_plain);
        match prefix.strip_suffix('/').unwrap_or(prefix).strip_prefix('/') {
            Some(names) if names.split('/').all(is_name) => Ok(format!("/{names}")),
            _ => Err(invalid(name, "not the beginning of a path", "use a path such as /store")),
        }
    }

    fn networks(&self, name: &str) -> Result<Vec<IpNet>> {
        let Some(networks) = self.text(name) else { return Ok(Vec::new()) };
        let parse = |network: &str| {
            let address = network.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| network.parse()).map_err(|_| {
                let why = format!("{network:?} is neither an address nor a network");
                invalid(name, &why, "use addresses and networks such as 127.0.0.1, 10.0.0.0/8")
            })
        };
        networks.split(',').map(str::trim).map(parse).collect()
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
                invalid(name, "not a list of origins", "use origins such as https://host:port, or *")
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
            ("GRAVITON_HTTP_PREFIX", "store"),
            ("GRAVITON_HTTP_PREFIX", "/"),
            ("GRAVITON_HTTP_PREFIX", "//store"),
            ("GRAVITON_HTTP_PREFIX", "/a/../b"),
            ("GRAVITON_HTTP_PREFIX", "/a b"),
            ("GRAVITON_HTTP_TRUSTED_PROXIES", "nginx"),
            ("GRAVITON_HTTP_TRUSTED_PROXIES", "10.0.0.0/33"),
            ("GRAVITON_HTTP_TRUSTED_PROXIES", "127.0.0.1,"),
            ("GRAVITON_HTTP_PROXY_HEADERS", "both"),
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
        assert_eq!(settings(&[("GRAVITON_HTTP_PREFIX", "/a/b-c/")]).unwrap().prefix, "/a/b-c");
    }
}
