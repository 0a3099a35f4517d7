//! The OpenAPI document without its routes, and `/docs`: a page that shows the document with Swagger UI.
//!
//! The viewer is part of the binary (`swagger-ui/README.md`), and the page's policy lets a browser load
//! nothing from another origin. Its addresses are relative, so it works under any path. The routes complete
//! the document (`routes`), which is therefore passed as a [`Document`] in an extension.

use std::fmt::Write;
use std::io::Read;
use std::sync::LazyLock;

use axum::Extension;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::blobs::{Disposition, MediaType};
use crate::problem::{CODES, MEDIA_TYPE};
use crate::schemas::{BlobIdText, BlockKeyText, JobNumber};

/// Lets the page run the viewer, which sets styles, draws its icons from `data:` addresses, and asks this
/// server. The page may load nothing from another origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const INTRODUCTION: &str = "A content-addressed blob store. Paths under `/api/v1/` are the same as those under \
    `/api/`. Every failure is `application/problem+json` with a code from a closed list, which `/docs#errors` explains.";

/// The text of the OpenAPI document.
#[derive(Clone)]
pub(crate) struct Document(pub(crate) Bytes);

/// The document before the routes are in it.
pub(crate) fn without_routes() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(
        info(title = "graviton-server", description = INTRODUCTION),
        tags(
            (name = "blobs", description = "Upload, download, list, delete and restore blobs"),
            (name = "blocks", description = "For clients that cut content into blocks and upload only what is missing"),
            (name = "operations", description = "Health, statistics, metrics and this documentation"),
            (name = "admin", description = "Garbage collection and verification"),
        ),
        components(schemas(crate::problem::Body<'static>, BlobIdText, BlockKeyText, MediaType, Disposition, JobNumber)),
        security(("bearer" = []))
    )]
    struct WithoutRoutes;

    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token from the server's token file, or a JSON Web Token. Its scopes are some of `read`, `write`, \
             `delete` and `admin`",
        ))
        .build();
    let mut document = WithoutRoutes::openapi();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document
}

/// Makes the body of a stream optional, which the macros cannot express: an empty stream is valid.
pub(crate) fn allow_empty_streams(document: &mut utoipa::openapi::OpenApi) {
    let items = document.paths.paths.values_mut();
    for operation in items.flat_map(|item| [&mut item.post, &mut item.put]).flatten() {
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && body.content.contains_key("*/*")
        {
            body.required = Some(utoipa::openapi::Required::False);
        }
    }
}

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(openapi))
        .routes(routes!(docs))
        .route("/docs/swagger-ui.js", get(async || asset("text/javascript", SCRIPT.clone())))
        .route("/docs/swagger-ui.css", get(async || asset("text/css", STYLE.clone())))
        .route("/docs/start.js", get(async || asset("text/javascript", include_str!("start.js"))))
        .route("/docs/page.css", get(async || asset("text/css", include_str!("page.css"))))
}

/// The OpenAPI document
#[utoipa::path(get, path = "/api/openapi.json", tag = "operations", security(()),
    responses((status = 200, content_type = "application/json", body = Object, description = "The OpenAPI document")))]
async fn openapi(Extension(document): Extension<Document>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], document.0).into_response()
}

/// The documentation as a web page
#[utoipa::path(get, path = "/docs", tag = "operations", security(()),
    responses((status = 200, content_type = "text/html", body = String, description = "The page")))]
async fn docs() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.as_str()).into_response()
}

fn asset(media_type: &str, content: impl Into<Bytes>) -> Response {
    let headers =
        [(CONTENT_TYPE, format!("{media_type}; charset=utf-8")), (CACHE_CONTROL, "max-age=3600".to_owned())];
    (headers, content.into()).into_response()
}

// Unpacked on the first request for the page, and compressed again for each client that accepts it: so the
// negotiation is the same as for all other responses.
static SCRIPT: LazyLock<Bytes> =
    LazyLock::new(|| unpack(include_bytes!("swagger-ui/swagger-ui-bundle.js.gz")));
static STYLE: LazyLock<Bytes> = LazyLock::new(|| unpack(include_bytes!("swagger-ui/swagger-ui.css.gz")));

fn unpack(compressed: &[u8]) -> Bytes {
    let mut content = Vec::new();
    if let Err(error) = GzDecoder::new(compressed).read_to_end(&mut content) {
        tracing::error!(%error, "an embedded file of /docs is damaged");
    }
    content.into()
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>graviton-server</title><link rel=\"stylesheet\" href=\"docs/swagger-ui.css\">\
         <link rel=\"stylesheet\" href=\"docs/page.css\"><div id=\"viewer\"></div>\
         <section id=\"errors\"><h2>Errors</h2><p>Every failure is <code>{MEDIA_TYPE}</code> with one of these codes.</p>\
         <table><tr><th>Code<th>Status<th>Meaning<th>Retryable"
    );
    for (code, title) in CODES {
        let retryable = if code.is_retryable() { "yes" } else { "no" };
        // Writing to a `String` cannot fail.
        let _ = write!(
            page,
            "<tr id=\"{code}\"><td><code>{code}</code><td>{}<td>{title}<td>{retryable}",
            code.http_status()
        );
    }
    page.push_str(
        "</table></section><script src=\"docs/swagger-ui.js\"></script><script src=\"docs/start.js\"></script></html>\n",
    );
    page
});
