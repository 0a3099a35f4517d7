//! One request, from the connection to the router and back: its ID, its admission, its metrics, its line in
//! the log, and the form of its failure.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use graviton_core::Code;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::Service;

use crate::app::Shared;
use crate::auth::Caller;
use crate::client::{Client, Requester};
use crate::connection::Connection;
use crate::problem::Problem;
use crate::request_id;
use crate::watched_body::WatchedBody;

/// States which pages may load the answer (Fetch, section 3.7).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Answers the requests of one connection.
#[derive(Clone)]
pub(crate) struct ConnectionService {
    pub(crate) app: Shared,
    pub(crate) router: Router,
    /// Answers requests that were not admitted.
    pub(crate) refusals: Router,
    pub(crate) connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl ConnectionService {
    async fn answer(mut self, mut request: Request<Incoming>) -> Response {
        let started = Instant::now();
        let _active = self.connection.begin();
        if let Some(plain) = plain(request.uri(), &self.app.settings().prefix) {
            *request.uri_mut() = plain;
        }
        let id = request_id::of(request.headers());
        let method = request.method().clone();
        let route = route(request.uri().path());
        let version = request.version();
        let logged_path = tracing::enabled!(tracing::Level::INFO)
            .then(|| request.uri().path().to_owned())
            .unwrap_or_default();
        let client =
            Client::of(self.app.settings(), self.connection.peer(), request.uri(), request.headers());
        let peer = client.address;
        let mut given_up = GivenUp {
            is_answered: false,
            id: id.clone(),
            method: &method,
            path: &logged_path,
            peer,
            started,
        };
        let admitted = check_head(&request, self.app.limits().max_headers)
            .and_then(|()| self.app.auth().admit(&method, request.uri(), request.headers(), &client));
        let (head, body) = request.into_parts();
        let (body, ended) = WatchedBody::new(body, version, self.app.leaving());
        let mut request = Request::from_parts(head, body);
        let (caller, mut response) = match admitted {
            Ok(caller) => {
                let connection = Arc::clone(&self.connection);
                let requester = Requester { connection, address: peer, request: id.clone() };
                request.extensions_mut().insert(requester);
                request.extensions_mut().insert(caller.clone());
                (Some(caller), self.handle(request).await)
            }
            Err(problem) => (None, self.refuse(request, problem).await),
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            response = self.render(problem, &id, response.headers());
        }
        self.guard(response.headers_mut(), caller.as_ref());
        if method == Method::HEAD && !response.status().is_success() {
            remove_body(&mut response);
        }
        given_up.is_answered = true;
        let status = response.status();
        if !ended.load(Ordering::Relaxed) {
            self.connection.linger();
            // Otherwise the client would reuse a connection that is closed once this response has arrived.
            if version < Version::HTTP_2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        count(route, &method, status.as_u16(), started);
        if tracing::enabled!(tracing::Level::INFO) {
            let milliseconds = started.elapsed().as_micros() as f64 / 1000.0;
            let who = caller.as_ref().map_or_else(|| "-".to_owned(), Caller::name);
            tracing::info!(
                request = %Shown(&id), %method, path = logged_path, status = status.as_u16(), milliseconds, %peer, who, "answered"
            );
        }
        response.headers_mut().insert(request_id::HEADER, id);
        response
    }

    /// The response of the handler of the route.
    async fn handle(&mut self, request: Request<WatchedBody>) -> Response {
        let routed = self.router.call(request.map(Body::new));
        let response = AssertUnwindSafe(routed).catch_unwind().await.unwrap_or_else(|_| {
            // The panic hook has logged where.
            Ok(Problem::internal(Code::Internal, "a handler panicked").into_response())
        });
        response.unwrap_or_else(|never| match never {})
    }

    /// The response to a request that is not admitted.
    async fn refuse(&mut self, mut request: Request<WatchedBody>, problem: Problem) -> Response {
        request.extensions_mut().insert(problem);
        let refused = self.refusals.call(request.map(|_| Body::empty())).await;
        refused.unwrap_or_else(|never| match never {})
    }

    /// The response that reports a problem to the client.
    fn render(&self, problem: Problem, id: &HeaderValue, outer: &HeaderMap) -> Response {
        if let Some(why) = problem.for_the_log() {
            tracing::error!(request = %Shown(id), code = %problem.code(), "{why}");
        }
        let prefix = &self.app.settings().prefix;
        let mut response = problem.render(prefix, id.to_str().unwrap_or_default(), outer.get(ALLOW).cloned());
        // Headers that a layer added, above all those for other origins.
        for (name, value) in outer {
            if !response.headers().contains_key(name) && name != CONTENT_LENGTH {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    }

    /// Headers that every response has.
    fn guard(&self, headers: &mut HeaderMap, caller: Option<&Caller>) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.make_public(headers);
        // Unless other origins are allowed, a browser hides the answer from their pages, even as a picture. A
        // link may be in any page.
        let is_linked = matches!(caller, Some(Caller::Link(_)));
        let is_for_all = is_linked || !self.app.settings().cors.is_empty();
        let readers = if is_for_all { "cross-origin" } else { "same-origin" };
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static(readers));
    }

    /// Replaces the path in `Location` by the path under which a proxy publishes it.
    fn make_public(&self, headers: &mut HeaderMap) {
        let prefix = &self.app.settings().prefix;
        if let Some(path) = headers.get(LOCATION).filter(|_| !prefix.is_empty())
            && let Ok(public) = HeaderValue::from_bytes(&[prefix.as_bytes(), path.as_bytes()].concat())
        {
            headers.insert(LOCATION, public);
        }
    }
}

/// Logs a request whose connection ended before the answer: hyper then drops its future, wherever that waits.
struct GivenUp<'a> {
    is_answered: bool,
    id: HeaderValue,
    method: &'a Method,
    path: &'a str,
    peer: IpAddr,
    started: Instant,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        metrics::counter!("graviton_http_given_up_requests_total").increment(1);
        let milliseconds = self.started.elapsed().as_micros() as f64 / 1000.0;
        tracing::info!(
            request = %Shown(&self.id), method = %self.method, path = self.path, milliseconds, peer = %self.peer,
            "given up: the connection ended before the answer"
        );
    }
}

/// A response to HEAD has no body; on HTTP/2 one would be sent.
fn remove_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact()
        && response.status().is_client_error() | response.status().is_server_error()
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

/// Refuses headers that are too large, and forms that HTTP/1.1 forbids but hyper accepts: a proxy in front of
/// the server may read them differently.
fn check_head(request: &Request<Incoming>, most: usize) -> Result<(), Problem> {
    let headers = request.headers();
    let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if line + size > most {
        let why = format!("the request headers are limited to {most} bytes; send fewer or shorter ones");
        return Err(
            Problem::new(Code::TooLarge, why).with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        );
    }
    if request.version() == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
        return Err(Problem::new(Code::InvalidArgument, "a request needs exactly one Host header"));
    }
    let codings = headers.get_all(TRANSFER_ENCODING);
    if codings.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.iter().count() > 1
    {
        let why = "the only supported Transfer-Encoding is `chunked`, once";
        return Err(Problem::new(Code::InvalidArgument, why)
            .with_header(CONNECTION, HeaderValue::from_static("close")));
    }
    Ok(())
}

/// A request ID in the log.
struct Shown<'a>(&'a HeaderValue);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

fn count(route: &'static str, method: &Method, status: u16, started: Instant) {
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        // A client can invent methods; each label would cost memory.
        _ => "other",
    };
    metrics::counter!("graviton_http_requests_total", "route" => route, "method" => method, "status" => status_text(status))
        .increment(1);
    metrics::histogram!("graviton_http_request_seconds", "route" => route, "method" => method)
        .record(started.elapsed().as_secs_f64());
}

/// The text of a status; the frequent ones without an allocation.
fn status_text(status: u16) -> std::borrow::Cow<'static, str> {
    match status {
        200 => "200".into(),
        201 => "201".into(),
        204 => "204".into(),
        206 => "206".into(),
        304 => "304".into(),
        404 => "404".into(),
        other => other.to_string().into(),
    }
}

/// The address without the prefix under which a proxy publishes the server, and without the version.
fn plain(uri: &Uri, prefix: &str) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str();
    let is_ours = |rest: &&str| {
        let path = rest.split('?').next().unwrap_or_default();
        matches!(path, "/docs" | "/metrics") || path.starts_with("/api/") || path.starts_with("/docs/")
    };
    let inside = path.strip_prefix(prefix).filter(is_ours).unwrap_or(path);
    let plain = match inside.strip_prefix("/api/v1/") {
        Some(rest) => PathAndQuery::try_from(format!("/api/{rest}")),
        None if inside.len() < path.len() => PathAndQuery::try_from(inside),
        None => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(plain.ok()?);
    Uri::from_parts(parts).ok()
}

/// The route of a path, for metrics: one of a fixed list, never the client's text.
fn route(path: &str) -> &'static str {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some("blobs"), None, None) => "/api/blobs",
        (Some("api"), Some("blobs"), Some(_), None) => "/api/blobs/{id}",
        (Some("api"), Some("blobs"), Some(_), Some("manifest")) => "/api/blobs/{id}/manifest",
        (Some("api"), Some("blobs"), Some(_), Some("restore")) => "/api/blobs/{id}/restore",
        (Some("api"), Some("blobs"), Some(_), Some("links")) => "/api/blobs/{id}/links",
        (Some("api"), Some("blocks"), Some("missing"), None) => "/api/blocks/missing",
        (Some("api"), Some("blocks"), Some(_), None) => "/api/blocks/{key}",
        (Some("api"), Some("manifests"), None, None) => "/api/manifests",
        (Some("api"), Some("admin"), _, _) => "/api/admin",
        (Some("api"), Some("health" | "ready"), None, None) => "/api/health",
        (Some("api"), Some("stats"), None, None) => "/api/stats",
        (Some("metrics"), None, None, None) => "/metrics",
        _ => "other",
    }
}
