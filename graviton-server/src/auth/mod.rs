//! Who asks, and whether they may: bearer tokens of a file, and JSON web tokens.
//!
//! What a request needs is decided in one place, before it is routed, from its method and path (`Need::of`), so that a
//! new route is never open by having been forgotten. Without any configured authentication everybody may do everything;
//! the server then listens on loopback only, unless it was told otherwise.

mod jwt;
mod origin;
pub mod tokens;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use graviton_core::{Code, Result};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::problem::Problem;
use crate::settings::Settings;
use jwt::Jwt;
use tokens::Tokens;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To read blobs and blocks, to list them, and to see sums and metrics.
    Read,
    /// To put blobs and blocks.
    Write,
    /// To delete blobs and to restore them.
    Delete,
    /// To collect and to verify.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 4] = [Scope::Read, Scope::Write, Scope::Delete, Scope::Admin];

    /// Its word in token files and JSON web tokens.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Delete => "delete",
            Scope::Admin => "admin",
        }
    }
}

/// Several scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Scopes {
        Scope::ALL.into_iter().fold(Scopes::default(), Scopes::with)
    }

    /// These and that one.
    #[must_use]
    pub fn with(self, scope: Scope) -> Scopes {
        Scopes(self.0 | 1 << scope as u8)
    }

    /// Whether that one is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// The scopes of words with commas or spaces between them; `None` if a word is none.
    pub fn parse(text: &str) -> Option<Scopes> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        words
            .map(|word| Scope::ALL.into_iter().find(|scope| scope.name() == word))
            .try_fold(Scopes::default(), |scopes, scope| scope.map(|scope| scopes.with(scope)))
    }
}

/// What a request has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: health, and what the server says of itself.
    Nothing,
    Scope(Scope),
}

impl Need {
    /// The path is one without `/v1`.
    pub(crate) fn of(method: &Method, path: &str) -> Need {
        let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match path {
            "/api/health" | "/api/ready" | "/api/openapi.json" | "/docs" => Need::Nothing,
            _ if path == "/api/admin" || path.starts_with("/api/admin/") => Need::Scope(Scope::Admin),
            _ if safe => Need::Scope(Scope::Read),
            _ if *method == Method::DELETE || path.ends_with("/restore") => Need::Scope(Scope::Delete),
            _ => Need::Scope(Scope::Write),
        }
    }
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    Token(Arc<str>),
    Address(IpAddr),
}

impl Caller {
    /// For the log.
    pub(crate) fn name(&self) -> String {
        match self {
            Caller::Token(name) => name.to_string(),
            Caller::Address(_) => "-".to_owned(),
        }
    }
}

/// Who is behind a credential.
#[derive(Debug, Clone)]
struct Grant {
    name: Arc<str>,
    scopes: Scopes,
}

/// The server's view of who may do what.
pub(crate) struct Auth {
    settings: Settings,
    tokens: ArcSwapOption<Tokens>,
    jwt: ArcSwapOption<Jwt>,
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
            rates,
        };
        auth.reload()?;
        Ok(auth)
    }

    /// Reads the files again. If one cannot be used, everything stays as it was.
    pub(crate) fn reload(&self) -> Result<()> {
        let tokens = self.settings.tokens.as_deref().map(Tokens::read).transpose()?;
        let jwt = self.settings.jwt.as_ref().map(Jwt::read).transpose()?;
        // Only now, when nothing can fail any more.
        self.tokens.store(tokens.map(Arc::new));
        self.jwt.store(jwt.map(Arc::new));
        Ok(())
    }

    /// Whether anybody has to show anything.
    pub(crate) fn is_on(&self) -> bool {
        self.settings.tokens.is_some() || self.settings.jwt.is_some()
    }

    /// Lets the request in, or says why not.
    pub(crate) fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Caller, Problem> {
        let Need::Scope(scope) = Need::of(method, uri.path()) else { return Ok(Caller::Address(address)) };
        if !self.is_on() {
            origin::check(&self.settings, method, uri, headers)?;
        }
        // A page of another origin asks first, without credentials; what it then asks is looked at in full.
        let is_preflight = *method == Method::OPTIONS && !self.settings.cors.is_empty();
        let caller = if self.is_on() && !is_preflight {
            let grant = self.grant(headers)?;
            if !grant.scopes.has(scope) {
                return Err(Problem::new(
                    Code::Forbidden,
                    format!("this token does not have the scope `{}`; use one that has it", scope.name()),
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
            return Err(refused("there is no credential, or more than one"));
        };
        let value = value.to_str().map_err(|_| refused("the credential is not text"))?;
        let token = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(refused("the credential is no bearer token")),
        };
        let tokens = self.tokens.load();
        if let Some(grant) = tokens.as_ref().and_then(|tokens| tokens.grant(token)) {
            return Ok(grant);
        }
        let jwt = self.jwt.load();
        let invalid = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        jwt.as_ref().and_then(|jwt| jwt.grant(token)).ok_or_else(|| {
            refused("the token is not valid, or not any more")
                .with_header(http::header::WWW_AUTHENTICATE, invalid)
        })
    }

    fn limit_rate(&self, caller: &Caller) -> Result<(), Problem> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let key = match caller {
            Caller::Token(name) => format!("token {name}"),
            Caller::Address(address) => address.to_string(),
        };
        rates.check_key(&key).map_err(|until| {
            let seconds = until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
            Problem::new(
                Code::RateLimited,
                "more requests came than the rate limit allows; wait before the next one",
            )
            .with_header(RETRY_AFTER, HeaderValue::from(seconds))
        })
    }

    /// Forgets whom the rate limit has not seen for a while.
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
    fn what_changes_something_never_needs_only_read() {
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
            (Method::GET, "/api/admin/jobs", Admin),
            (Method::POST, "/api/admin/gc", Admin),
            (Method::DELETE, "/api/admin/jobs/1", Admin),
        ] {
            assert_eq!(Need::of(&method, path), Need::Scope(scope), "{method} {path}");
        }
        assert_eq!(Need::of(&Method::GET, "/api/health"), Need::Nothing);
    }

    #[test]
    fn scopes_are_words() {
        let some = Scopes::parse("read,write").unwrap();
        assert!(some.has(Scope::Read) && some.has(Scope::Write) && !some.has(Scope::Delete));
        assert_eq!(Scopes::parse("read write delete admin"), Some(Scopes::all()));
        assert_eq!(Scopes::parse("read,root"), None);
        assert_eq!(Scopes::parse(""), Some(Scopes::default()));
    }
}
