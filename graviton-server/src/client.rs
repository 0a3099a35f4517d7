//! The client of a request: its address, and the host and scheme that it used, also behind proxies.
//!
//! A proxy is trusted only if its own address is listed (`GRAVITON_HTTP_TRUSTED_PROXIES`), and only in the
//! headers that the operator chose (`GRAVITON_HTTP_PROXY_HEADERS`): a proxy that writes one kind of header
//! passes on the other kind as the client sent it. The list of addresses is read from its end, which the
//! nearest proxy wrote. The client is the first address that does not belong to a trusted proxy. Everything
//! before it is the client's own claim.
//!
//! The crates for `Forwarded` (RFC 7239) cannot read a list from its end, element by element.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use crate::connection::Connection;
use crate::settings::{ProxyHeaders, Settings};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client<'a> {
    pub(crate) address: IpAddr,
    /// The requested host, with a port if the client named one; empty if the client named no host.
    pub(crate) host: &'a str,
    /// The host that the request itself names. A page in a browser can set any header, but not this one; that
    /// matters where the browser runs on the machine of a trusted proxy.
    pub(crate) named: &'a str,
    pub(crate) is_https: bool,
}

impl<'a> Client<'a> {
    /// The client of the request with this address and these headers, which came from this peer.
    pub(crate) fn of(settings: &Settings, peer: IpAddr, uri: &'a Uri, headers: &'a HeaderMap) -> Client<'a> {
        // HTTP/2 has the host in the address.
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(HOST).and_then(|host| host.to_str().ok()),
        };
        let named = host.unwrap_or_default();
        let mut client = Client { address: peer, host: named, named, is_https: settings.tls.is_some() };
        if !is_trusted(&settings.trusted_proxies, peer) {
            return client;
        }
        match settings.proxy_headers {
            ProxyHeaders::XForwarded => client.believe_x_forwarded(&settings.trusted_proxies, headers),
            ProxyHeaders::Forwarded => client.believe_forwarded(&settings.trusted_proxies, headers),
        }
        client
    }

    fn believe_x_forwarded(&mut self, trusted: &[IpNet], headers: &'a HeaderMap) {
        for node in elements(headers, &FORWARDED_FOR, false).rev() {
            let Some(address) = address(node) else { break };
            self.address = address;
            if !is_trusted(trusted, address) {
                break;
            }
        }
        // The nearest proxy wrote the last element.
        if let Some(host) = elements(headers, &FORWARDED_HOST, false).next_back() {
            self.host = host;
        }
        if let Some(scheme) = elements(headers, &FORWARDED_PROTO, false).next_back() {
            self.is_https = scheme.eq_ignore_ascii_case("https");
        }
    }

    fn believe_forwarded(&mut self, trusted: &[IpNet], headers: &'a HeaderMap) {
        for element in elements(headers, &FORWARDED, true).rev() {
            let Some(hop) = Hop::parse(element) else { break };
            if let Some(host) = hop.host {
                self.host = host;
            }
            if let Some(scheme) = hop.scheme {
                self.is_https = scheme.eq_ignore_ascii_case("https");
            }
            let Some(address) = hop.node.and_then(address) else { break };
            self.address = address;
            if !is_trusted(trusted, address) {
                break;
            }
        }
    }
}

/// The connection of a request, and its client's address and its ID, for the log.
#[derive(Clone)]
pub(crate) struct Requester {
    pub(crate) connection: Arc<Connection>,
    pub(crate) address: IpAddr,
    pub(crate) request: HeaderValue,
}

/// Whether this is the address of a trusted proxy.
pub(crate) fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The part of the address by which limits count. An IPv6 client owns a whole 64-bit network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// The elements of a list that may be spread over several headers. With `has_quotes`, commas in quotes do not
/// separate, unless a quote of the header is never closed: so a client that opens a quote hides nothing that
/// a proxy adds.
fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    has_quotes: bool,
) -> impl DoubleEndedIterator<Item = &'a str> {
    let mut elements = Vec::new();
    for value in headers.get_all(name) {
        let value = value.as_bytes();
        let is_closed = value.split(|byte| *byte == b'"').count() % 2 == 1;
        let mut is_quoted = false;
        let pieces = value.split(|byte| {
            is_quoted ^= *byte == b'"' && has_quotes && is_closed;
            *byte == b',' && !is_quoted
        });
        // A piece that is not valid text is no address.
        let texts = pieces.map(|piece| std::str::from_utf8(piece).map_or("?", str::trim));
        elements.extend(texts.filter(|element| !element.is_empty()));
    }
    elements.into_iter()
}

/// The pieces between these separators, ignoring separators in quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |letter| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })
}

/// The parameters that one proxy wrote in `Forwarded`.
#[derive(Default)]
struct Hop<'a> {
    node: Option<&'a str>,
    host: Option<&'a str>,
    scheme: Option<&'a str>,
}

impl<'a> Hop<'a> {
    fn parse(element: &'a str) -> Option<Hop<'a>> {
        let mut hop = Hop::default();
        for pair in split(element, ';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = match value.strip_prefix('"') {
                Some(rest) => rest.strip_suffix('"')?,
                None => value,
            };
            // No address, host or scheme contains such a character: the value is escaped or broken.
            if value.contains(['"', '\\']) {
                return None;
            }
            match &*name.to_ascii_lowercase() {
                "for" => hop.node = Some(value),
                "host" => hop.host = Some(value),
                "proto" => hop.scheme = Some(value),
                _ => {}
            }
        }
        Some(hop)
    }
}

/// The address of a node, which may have a port. `None` for `unknown` and for obfuscated names.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().ok().or_else(|| Some(node.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(headers: &str) -> Settings {
        let pairs = [("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8, 2001:db8::/32"), ("PROXY_HEADERS", headers)];
        let pairs = pairs.map(|(name, value)| (format!("GRAVITON_HTTP_{name}"), value.to_owned()));
        Settings::new(&pairs).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn assert_client(
        settings: &Settings,
        peer: &str,
        said: &[(&'static str, &str)],
        expected: (&str, &str, bool),
    ) {
        let (uri, headers) = (Uri::from_static("/"), headers(said));
        let client = Client::of(settings, peer.parse().unwrap(), &uri, &headers);
        let (address, host, is_https) = expected;
        let named = said.iter().find(|(name, _)| *name == "host").map_or("", |(_, host)| *host);
        let expected = Client { address: address.parse().unwrap(), host, named, is_https };
        assert_eq!(client, expected, "{said:?}");
    }

    #[test]
    fn a_proxy_that_is_not_trusted_is_a_client() {
        let said = [("host", "x"), ("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        for kind in ["x-forwarded", "forwarded"] {
            assert_client(&settings(kind), "198.51.100.7", &said, ("198.51.100.7", "x", false));
        }
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_is_the_client() {
        let settings = settings("x-forwarded");
        for (list, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
            ("203.0.113.9, 192.0.2.1, 10.1.2.3", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db9::1]:80", "2001:db9::1"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("2001:db9::1, ::ffff:10.0.0.1", "2001:db9::1"),
            // All of these are proxies: the farthest counts.
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            // An element that cannot be read ends the list.
            ("192.0.2.1, unknown", "127.0.0.1"),
            ("192.0.2.1, , 10.0.0.1,", "192.0.2.1"),
            // Quotes have no meaning in this header.
            ("\", 192.0.2.1", "192.0.2.1"),
            ("\"a, 192.0.2.1", "192.0.2.1"),
            ("", "127.0.0.1"),
        ] {
            assert_client(&settings, "127.0.0.1", &[("x-forwarded-for", list)], (client, "", false));
        }
        let said = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "evil.example, store.example:8443"),
            ("x-forwarded-proto", "https"),
            ("host", "inside"),
            // The client sent this header, and the proxy passes it on.
            ("forwarded", "for=203.0.113.9;host=evil.example"),
        ];
        assert_client(&settings, "::ffff:127.0.0.1", &said, ("192.0.2.1", "store.example:8443", true));
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing() {
        let mut said = HeaderMap::new();
        said.append(FORWARDED_FOR, HeaderValue::from_bytes(b"\xff, 192.0.2.1").unwrap());
        let (uri, settings) = (Uri::from_static("/"), settings("x-forwarded"));
        let client = Client::of(&settings, [127, 0, 0, 1].into(), &uri, &said);
        assert_eq!(client.address.to_string(), "192.0.2.1");
    }

    #[test]
    fn the_header_of_the_rfc() {
        let settings = settings("forwarded");
        for (value, expected) in [
            ("for=192.0.2.1;proto=https;host=store.example", ("192.0.2.1", "store.example", true)),
            ("For=\"[2001:db9::1]:4711\"; Proto=http ; by=_x", ("2001:db9::1", "", false)),
            ("for=203.0.113.9, for=192.0.2.1;host=\"a,b;c\", for=10.0.0.1", ("192.0.2.1", "a,b;c", false)),
            ("for=192.0.2.1, for=unknown", ("127.0.0.1", "", false)),
            ("for=192.0.2.1, for=_hidden;proto=https", ("127.0.0.1", "", true)),
            ("for=192.0.2.1, nonsense", ("127.0.0.1", "", false)),
            ("for=\"192.0.2.1", ("127.0.0.1", "", false)),
            // A client that opens a quote cannot hide the addition of a proxy.
            ("for=\", for=192.0.2.1", ("192.0.2.1", "", false)),
            ("for=\"a, for=\"[2001:db9::1]\"", ("2001:db9::1", "", false)),
            ("for=\"192.0.2.1\\\"\"", ("127.0.0.1", "", false)),
        ] {
            let said = [("forwarded", value), ("x-forwarded-for", "203.0.113.9")];
            assert_client(&settings, "127.0.0.1", &said, expected);
        }
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let network_of = |address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network_of("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
