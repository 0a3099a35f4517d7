//! Web pages, where nobody has to show anything: a server on loopback is open to every browser on its host, and so, but
//! for this, to every page in them.
//!
//! A page can send a simple request to any origin without asking first, and, with a name that it makes point to
//! 127.0.0.1, can read the answers too. So requests that change something come from no page of another origin, unless
//! `GRAVITON_HTTP_CORS` lets it, and the server on loopback answers only to names that can be nobody else's.

use std::net::IpAddr;

use graviton_core::Code;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

use crate::problem::Problem;
use crate::settings::Settings;

/// Lets the request in, or says why not.
pub(super) fn check(
    settings: &Settings,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    // HTTP/2 has it in the address.
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let host = host.unwrap_or_default();
    if settings.address.ip().is_loopback() && !is_ours(host, &settings.hosts) {
        let why = "the server on loopback does not answer to this name; use localhost or an address, or have it \
                   named in GRAVITON_HTTP_HOSTS";
        return Err(Problem::new(Code::Forbidden, why));
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let may = |origin: &http::HeaderValue| {
        let same = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        same.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
            || settings.cors.iter().any(|allowed| allowed == "*" || allowed == origin)
    };
    if headers.get_all(ORIGIN).iter().all(may) {
        return Ok(());
    }
    let why =
        "a page of another origin may not change anything here; have its origin named in GRAVITON_HTTP_CORS";
    Err(Problem::new(Code::Forbidden, why))
}

/// Whether nobody can make this name point here whose it is not.
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
    fn names_that_can_be_anybody_s_are_not_ours() {
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
