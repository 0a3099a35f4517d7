//! Authentication and authorisation: bearer tokens from a file, and JSON Web Tokens.
//!
//! The scope that a request needs follows from its method and path (`Need::of`), before it is routed, so a
//! new route is closed by default. Without configured authentication everyone may do everything; the server
//! then listens on loopback only, unless told otherwise. A link to a blob (`links`) is its own permission.

mod jwt;
pub(crate) mod links;
mod origin;
mod scopes;
mod signatures;
pub mod tokens;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use graviton_core::{Code, Error, Result};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::client::{Client, network};
use crate::problem::Problem;
use crate::settings::Settings;
use jwt::Jwt;
use links::{Links, Presented};
use scopes::Grant;
pub use scopes::{Scope, Scopes};
use tokens::Tokens;

/// The permission that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: health checks and documentation.
    Nothing,
    Scope(Scope),
}

impl Need {
    /// The need of a request. `path` has no `/v1`.
    pub(crate) fn of(method: &Method, path: &str) -> Need {
        let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match path {
            "/api/health" | "/api/ready" | "/api/openapi.json" | "/docs" => Need::Nothing,
            "/docs/swagger-ui.js" | "/docs/swagger-ui.css" | "/docs/start.js" | "/docs/page.css" => {
                Need::Nothing
            }
            _ if path == "/api/admin" || path.starts_with("/api/admin/") => Need::Scope(Scope::Admin),
            _ if safe => Need::Scope(Scope::Read),
            // A link grants no more than its maker may read.
            _ if *method == Method::POST && path.starts_with("/api/blobs/") && path.ends_with("/links") => {
                Need::Scope(Scope::Read)
            }
            _ if *method == Method::DELETE || path.ends_with("/restore") => Need::Scope(Scope::Delete),
            _ => Need::Scope(Scope::Write),
        }
    }
}

/// The client of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    Token(Arc<str>),
    /// Without authentication.
    Address(IpAddr),
    /// A request with a link.
    Link(IpAddr),
}

impl Caller {
    /// The name for the log.
    pub(crate) fn name(&self) -> String {
        match self {
            Caller::Token(name) => name.to_string(),
            Caller::Address(_) => "-".to_owned(),
            Caller::Link(_) => "a link".to_owned(),
        }
    }
}

/// Decides which requests are admitted.
pub(crate) struct Auth {
    settings: Settings,
    tokens: ArcSwapOption<Tokens>,
    jwt: ArcSwapOption<Jwt>,
    links: ArcSwapOption<Links>,
    rates: Option<DefaultKeyedRateLimiter<String>>,
}

impl Auth {
    /// Reads the files that the settings name.
    pub(crate) fn new(settings: &Settings) -> Result<Auth> {
        let rates = NonZeroU32::new(settings.limits.rate).map(|rate| {
            let burst = NonZeroU32::new(settings.limits.burst).unwrap_or(NonZeroU32::MIN);
            DefaultKeyedRateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        let auth = Auth {
            settings: settings.clone(),
            tokens: ArcSwapOption::empty(),
            jwt: ArcSwapOption::empty(),
            links: ArcSwapOption::empty(),
            rates,
        };
        auth.reload()?;
        Ok(auth)
    }

    /// Reads the files again. If a file cannot be used, nothing changes. That includes a token file that had
    /// tokens and now has none: it is being written, or was cleared by mistake, and would lock everybody out.
    pub(crate) fn reload(&self) -> Result<()> {
        let tokens = self.settings.tokens.as_deref().map(Tokens::read).transpose()?;
        let had_some = self.tokens.load().as_ref().is_some_and(|tokens| !tokens.is_empty());
        if let (Some(tokens), Some(path)) = (&tokens, &self.settings.tokens)
            && tokens.is_empty()
            && had_some
        {
            let why = format!("the token file {} has no tokens any more", path.display());
            return Err(Error::new(Code::Config, why).with_advice(
                "to lock everybody out, leave a line whose token has expired, or end the server",
            ));
        }
        let jwt = self.settings.jwt.as_ref().map(Jwt::read).transpose()?;
        let links = self.settings.link_keys.as_deref().map(Links::read).transpose()?;
        // Stored last, when nothing can fail any more.
        self.links.store(links.map(Arc::new));
        self.tokens.store(tokens.map(Arc::new));
        self.jwt.store(jwt.map(Arc::new));
        Ok(())
    }

    /// Whether requests need a credential.
    pub(crate) fn is_on(&self) -> bool {
        self.settings.tokens.is_some() || self.settings.jwt.is_some()
    }

    /// Admits the request, or returns the reason for refusing it.
    pub(crate) fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        client: &Client<'_>,
    ) -> Result<Caller, Problem> {
        let address = network(client.address);
        let Need::Scope(scope) = Need::of(method, uri.path()) else { return Ok(Caller::Address(address)) };
        if let Some(mut link) = Presented::of(method, uri) {
            let links = self.links.load();
            let links = links.as_ref().ok_or_else(|| links::refused("this server has no links"))?;
            links.check(&mut link)?;
            let caller = Caller::Link(address);
            self.limit_rate(&caller)?;
            return Ok(caller);
        }
        if !self.is_on() {
            origin::check(&self.settings, method, client, headers)?;
        }
        // A browser sends a preflight request without credentials; the request that follows is checked in
        // full.
        let is_preflight = *method == Method::OPTIONS && !self.settings.cors.is_empty();
        let caller = if self.is_on() && !is_preflight {
            let grant = self.grant(headers)?;
            if !grant.scopes.has(scope) {
                return Err(Problem::new(
                    Code::Forbidden,
                    format!("this token lacks the scope `{}`; use a token that has it", scope.name()),
                ));
            }
            Caller::Token(grant.name)
        } else {
            Caller::Address(address)
        };
        if !is_preflight {
            self.limit_rate(&caller)?;
        }
        Ok(caller)
    }

    fn grant(&self, headers: &HeaderMap) -> Result<Grant, Problem> {
        let refused = |why: &str| {
            Problem::new(Code::Unauthorized, format!("{why}; send `Authorization: Bearer TOKEN`"))
        };
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else {
            return Err(refused("the request needs exactly one Authorization header"));
        };
        let value = value.to_str().map_err(|_| refused("the Authorization header is not text"))?;
        let token = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(refused("the Authorization header has no bearer token")),
        };
        let tokens = self.tokens.load();
        if let Some(grant) = tokens.as_ref().and_then(|tokens| tokens.grant(token)) {
            return Ok(grant);
        }
        let jwt = self.jwt.load();
        let invalid = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        jwt.as_ref().and_then(|jwt| jwt.grant(token)).ok_or_else(|| {
            refused("the token is not valid or has expired")
                .with_header(http::header::WWW_AUTHENTICATE, invalid)
        })
    }

    fn limit_rate(&self, caller: &Caller) -> Result<(), Problem> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let key = match caller {
            Caller::Token(name) => format!("token {name}"),
            Caller::Address(address) | Caller::Link(address) => address.to_string(),
        };
        rates.check_key(&key).map_err(|until| {
            let seconds = until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
            Problem::new(Code::RateLimited, "the rate limit is exceeded; wait before the next request")
                .with_header(RETRY_AFTER, HeaderValue::from(seconds))
        })
    }

    /// The keys of links, if there are any.
    pub(crate) fn links(&self) -> Option<Arc<Links>> {
        self.links.load_full()
    }

    /// Forgets clients that the rate limit has not seen for a while.
    pub(crate) fn forget_old_rates(&self) {
        if let Some(rates) = &self.rates {
            rates.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_change_something_never_need_only_read() {
        use Scope::{Admin, Delete, Read, Write};
        for (method, path, scope) in [
            (Method::GET, "/api/blobs", Read),
            (Method::HEAD, "/api/blobs/x", Read),
            (Method::GET, "/metrics", Read),
            (Method::GET, "/nowhere", Read),
            (Method::POST, "/api/blobs", Write),
            (Method::PUT, "/api/blobs/x", Write),
            (Method::POST, "/api/blocks/missing", Write),
            (Method::PATCH, "/api/blobs/x", Write),
            (Method::DELETE, "/api/blobs/x", Delete),
            (Method::POST, "/api/blobs/x/restore", Delete),
            (Method::POST, "/api/blobs/x/links", Read),
            (Method::PUT, "/api/blobs/x/links", Write),
            (Method::DELETE, "/api/blobs/x/links", Delete),
            (Method::GET, "/api/admin/jobs", Admin),
            (Method::POST, "/api/admin/gc", Admin),
            (Method::POST, "/api/admin/repack", Admin),
            (Method::DELETE, "/api/admin/jobs/1", Admin),
        ] {
            assert_eq!(Need::of(&method, path), Need::Scope(scope), "{method} {path}");
        }
        assert_eq!(Need::of(&Method::GET, "/api/health"), Need::Nothing);
    }
}
