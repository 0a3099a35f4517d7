//! The table of routes, the answers for unknown routes, and the OpenAPI document made from the table.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Query, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use graviton_core::Code;
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, Version};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::{admin, blobs, blocks, docs, health, metrics};

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT: Duration = Duration::from_secs(3_600);

/// Every route, and the document that describes them.
fn routes() -> OpenApiRouter<Shared> {
    let documents = OpenApiRouter::new()
        .merge(blobs::documents())
        .merge(blocks::documents())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(admin::routes())
        .merge(docs::routes())
        .layer(CompressionLayer::new().compress_when(is_compressible));
    OpenApiRouter::with_openapi(docs::without_routes())
        .merge(blobs::streams())
        .merge(blocks::streams())
        .merge(documents)
}

/// JSON and the files of `/docs`. Most blobs are already compressed, and the other responses are small.
fn is_compressible(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let kinds: [&[u8]; 4] = [b"application/json", b"text/html", b"text/css", b"text/javascript"];
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kinds.iter().any(|compressible| kind.starts_with(compressible))
}

static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
    let mut document = routes().into_openapi();
    docs::allow_empty_streams(&mut document);
    document
});

static OPENAPI: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_pretty_json().unwrap_or_default() + "\n");

/// The OpenAPI document as it is committed and served.
pub fn openapi_json() -> &'static str {
    &OPENAPI
}

/// The same document for a server that is published under this prefix.
fn published_at(prefix: &str) -> Bytes {
    if prefix.is_empty() {
        return Bytes::from_static(openapi_json().as_bytes());
    }
    let mut document = DOCUMENT.clone();
    document.servers = Some(vec![utoipa::openapi::Server::new(prefix)]);
    document.to_pretty_json().unwrap_or_default().into()
}

pub(crate) fn router(app: &Shared) -> Router {
    let (router, _) = routes().split_for_parts();
    let router = router
        .layer(middleware::from_fn(check_query))
        .fallback(async || Problem::new(Code::NotFound, "no such path; see /docs for all routes"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                Code::MethodNotAllowed,
                "this path does not support the method; see /docs for all routes",
            )
        })
        .layer(Extension(docs::Document(published_at(&app.settings().prefix))))
        .with_state(Arc::clone(app));
    with_cors(router, app.settings())
}

/// The query parameters that each route has, by its path and method, as the document says.
static PARAMETERS: LazyLock<HashMap<(&str, Method), BTreeSet<&str>>> = LazyLock::new(|| {
    fn name(parameter: &RefOr<Parameter>) -> Option<&str> {
        match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(&parameter.name),
            _ => None,
        }
    }
    fn names(operation: &Operation) -> BTreeSet<&str> {
        operation.parameters.iter().flatten().filter_map(name).collect()
    }
    let mut all = HashMap::new();
    for (path, item) in &DOCUMENT.paths.paths {
        let operations = [
            // A HEAD request is valid for a route with GET.
            (Method::HEAD, item.head.as_ref().or(item.get.as_ref())),
            (Method::GET, item.get.as_ref()),
            (Method::PUT, item.put.as_ref()),
            (Method::POST, item.post.as_ref()),
            (Method::DELETE, item.delete.as_ref()),
        ];
        for (method, operation) in operations {
            all.extend(operation.map(|operation| ((path.as_str(), method), names(operation))));
        }
    }
    all
});

/// Refuses query parameters that the route does not have: otherwise a misspelt one would silently get its
/// default.
async fn check_query(request: Request, next: Next) -> Response {
    // Most requests have no query.
    if request.uri().query().is_some()
        && let Some(path) = request.extensions().get::<MatchedPath>()
        && let Some(known) = PARAMETERS.get(&(path.as_str(), request.method().clone()))
        && let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
        && let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(name.as_str()))
    {
        let known: Vec<&str> = known.iter().copied().collect();
        let what = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let method = request.method();
        let why = format!("unknown query parameter {name:?}; {method} of this path has {what}");
        return Problem::new(Code::InvalidArgument, why).into_response();
    }
    next.run(request).await
}

/// Answers requests that were not admitted, with the [`Problem`] among their extensions. Like the routes, it
/// lets pages of allowed origins read the answer.
pub(crate) fn refusals(app: &Shared) -> Router {
    with_cors(Router::new().fallback(async |Extension(problem): Extension<Problem>| problem), app.settings())
}

/// Tells browsers which pages may use the server, if pages of other origins may.
fn with_cors(router: Router, settings: &Settings) -> Router {
    let origins = &settings.cors;
    if origins.is_empty() {
        return router;
    }
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.clone())
    };
    let exposed = [
        "etag",
        "location",
        "content-range",
        "content-disposition",
        "accept-ranges",
        "retry-after",
        "www-authenticate",
        "x-request-id",
        "preference-applied",
    ];
    let own = ["prefer", "graviton-session", "x-request-id"].map(HeaderName::from_static);
    let standard = [AUTHORIZATION, CONTENT_TYPE, RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH];
    let cors = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(Any)
        .allow_headers(standard.into_iter().chain(own).collect::<Vec<_>>())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(PREFLIGHT);
    router.layer(cors)
}
