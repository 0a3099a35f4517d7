//! Protects a server without authentication from web pages: every browser on the server's host can reach it
//! on loopback.
//!
//! A page can send simple requests to any origin without a preflight, and can read the answers if it makes a
//! name of its own resolve to 127.0.0.1 (DNS rebinding). So a request that changes something must not come
//! from a page of another origin, unless `GRAVITON_HTTP_CORS` allows it, and on loopback the server answers
//! only to names that no attacker owns. A page could also load a blob as a picture, without reading it, and
//! so find out whether it is stored. Requests that a browser marks as another site's (`Sec-Fetch-Site`, W3C
//! Fetch Metadata) are therefore refused, except when the user follows a link.

use std::net::IpAddr;

use graviton_core::Code;
use http::header::ORIGIN;
use http::{HeaderMap, Method};

use crate::client::Client;
use crate::problem::Problem;
use crate::settings::Settings;

/// Admits the request of this client, or returns the reason for refusing it.
pub(super) fn check(
    settings: &Settings,
    method: &Method,
    client: &Client<'_>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let host = client.host;
    // Both hosts must be known: a browser may run on the machine of a trusted proxy, and its page could put
    // another host into a header.
    let are_ours = [client.named, host].iter().all(|host| is_ours(host, &settings.hosts));
    if settings.address.ip().is_loopback() && !are_ours {
        let why = "a server on loopback does not answer to this host name; use localhost or an IP address, or add \
                   the name to GRAVITON_HTTP_HOSTS";
        return Err(Problem::new(Code::Forbidden, why));
    }
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let may = |origin: &http::HeaderValue| {
        let same = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        same.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
            || settings.cors.iter().any(|allowed| allowed == "*" || allowed == origin)
    };
    if is_safe {
        let is_allowed = headers.contains_key(ORIGIN) && headers.get_all(ORIGIN).iter().all(may);
        if !is_of_another_site(headers) || is_allowed || settings.cors.iter().any(|allowed| allowed == "*") {
            return Ok(());
        }
        let why = "a page of another origin may not load anything from here; add its origin to GRAVITON_HTTP_CORS, \
                   and give the element of the page the attribute `crossorigin`";
        return Err(Problem::new(Code::Forbidden, why));
    }
    if headers.get_all(ORIGIN).iter().all(may) {
        return Ok(());
    }
    let why = "a page of another origin may not change anything here; add its origin to GRAVITON_HTTP_CORS";
    Err(Problem::new(Code::Forbidden, why))
}

/// Whether the browser says that a page of another site loads this, other than by following a link.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let says = |name: &str, word: &str| headers.get(name).is_some_and(|value| value == word);
    let is_followed = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
    !is_followed && (says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site"))
}

/// Whether no attacker can own this host name.
fn is_ours(host: &str, known: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || known.iter().any(|host| host == "*" || *host == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_attacker_can_own_are_not_ours() {
        let known = ["store.example".to_owned()];
        for ours in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]",
            "Store.example:443",
        ] {
            assert!(is_ours(ours, &known), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1",
            "[evil.example]",
            "notlocalhost",
        ] {
            assert!(!is_ours(other, &known), "{other}");
        }
        assert!(is_ours("evil.example", &["*".to_owned()]));
    }
}
