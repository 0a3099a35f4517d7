//! What the server says of itself: the OpenAPI document, generated from the routes, and a page to read made from it.
//!
//! The schemas and the failures that several routes share are described here once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::problem::{CODES, MEDIA_TYPE};

/// The document before the routes are in it.
#[derive(OpenApi)]
#[openapi(
    info(title = "graviton-server", description = "A content-addressed blob store. Paths under `/api/v1/` are the same as those under `/api/`."),
    tags(
        (name = "blobs", description = "Streams in, streams out"),
        (name = "blocks", description = "For clients that look for what is there before they send it"),
        (name = "operations", description = "Health, sums, and what the server says of itself"),
        (name = "admin", description = "Collections and verifications"),
    ),
    components(schemas(crate::problem::Body<'static>, BlobIdText, BlockKeyText, MediaType, Disposition, JobNumber)),
    security(("bearer" = []))
)]
pub(crate) struct Document;

/// Adds what the macros cannot say.
pub(crate) fn finish(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the server's file, or a JSON web token; its scopes are some of read, write, delete and admin"))
        .build();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let items = document.paths.paths.values_mut();
    for operation in items.flat_map(|item| [&mut item.post, &mut item.put]).flatten() {
        // Nothing at all is a stream too.
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && body.content.contains_key("*/*")
        {
            body.required = Some(utoipa::openapi::Required::False);
        }
    }
    document
}

/// The name of a blob: algorithm, digest of the whole stream, and length in bytes
#[derive(ToSchema)]
#[schema(
    pattern = "^(blake3|sha256):[0-9a-f]{64}:(0|[1-9][0-9]{0,17})$",
    example = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5"
)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct BlobIdText(String);

/// The name of a block: algorithm, digest, and size in bytes, up to 16 MiB
#[derive(ToSchema)]
#[schema(
    pattern = "^(blake3|sha256):[0-9a-f]{64}:[1-9][0-9]{0,6}$",
    example = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5"
)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct BlockKeyText(String);

/// The number of a job
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct JobNumber(u64);

/// How a browser is to treat a blob
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) enum Disposition {
    Inline,
    Attachment,
}

/// Bytes of whatever kind
pub(crate) struct Content;

impl utoipa::PartialSchema for Content {
    fn schema() -> RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
            .into()
    }
}

impl ToSchema for Content {}

/// What a blob can be sent as: a media type from a list of safe ones
pub(crate) struct MediaType;

impl utoipa::PartialSchema for MediaType {
    fn schema() -> RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(crate::blobs::MEDIA_TYPES.iter().copied()))
            .description(Some("What a blob can be sent as"))
            .into()
    }
}

impl ToSchema for MediaType {}

/// Failures that a route can answer with: a type for each group, and status and meaning of each failure in it.
macro_rules! failures {
    ($($(#[$attribute:meta])* $name:ident: $($status:literal $meaning:literal),+;)+) => {$(
        $(#[$attribute])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
                let problem = || {
                    let schema = Ref::from_schema_name("Problem");
                    ContentBuilder::new().schema(Some(schema)).build()
                };
                BTreeMap::from([$((
                    $status.to_owned(),
                    ResponseBuilder::new().description($meaning).content(MEDIA_TYPE, problem()).build().into(),
                )),+])
            }
        }
    )+};
}

failures! {
    /// What any route but the open ones can answer.
    Common:
        "400" "The request makes no sense: `invalid-argument`, `invalid-id`",
        "401" "No valid token: `unauthorized`",
        "403" "The token does not allow it: `forbidden`",
        "431" "The head of the request is too large: `too-large`",
        "429" "More requests than the rate limit allows: `rate-limited`. Retry-After says when",
        "500" "Something is broken here: `corrupt-block`, `missing-block`, `corrupt-database`, `io`, `latched`, `internal`",
        "503" "Not now: `backend-unavailable`, `writer-expired`, `overloaded`. Retry-After says when";
    /// What routes that name something can answer.
    NotFound: "404" "There is no such thing: `not-found`";
    /// What a blob of blocks that are not there is.
    MissingBlocks: "404" "Some of its blocks are not there: `not-found`, with their keys in `missing`. Put them, and commit again";
    /// What ranges can end in.
    RangeNotSatisfiable: "416" "The range starts behind the end: `range-not-satisfiable`";
    /// What requests with conditions can end in.
    PreconditionFailed: "412" "`If-Match` or `If-None-Match` does not hold: `invalid-argument`";
    /// What routes that take some JSON can answer.
    BodyProblems:
        "408" "The content took too long to arrive: `timeout`",
        "413" "The content is too large: `too-large`",
        "415" "The content is not JSON: `unsupported`";
    /// What routes that take a stream can answer.
    UploadProblems:
        "408" "The content took too long to arrive: `timeout`",
        "413" "The content is too large: `too-large`",
        "507" "There is no room: `no-space`, `quota-exceeded`";
    /// What content under the wrong name is.
    DigestMismatch: "422" "The content is not what its id says: `digest-mismatch`";
    /// What a server that is of no use answers.
    Unavailable: "503" "It is not: `backend-unavailable`, `overloaded`";
}

static JSON: LazyLock<String> =
    LazyLock::new(|| crate::app::openapi().to_pretty_json().unwrap_or_default() + "\n");

static PAGE: LazyLock<String> = LazyLock::new(|| page(&serde_json::from_str(&JSON).unwrap_or_default()));

/// The OpenAPI document as it is committed and served.
pub fn openapi_json() -> &'static str {
    &JSON
}

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(openapi)).routes(routes!(docs))
}

/// This document
#[utoipa::path(get, path = "/api/openapi.json", tag = "operations", security(()),
    responses((status = 200, content_type = "application/json", body = Object, description = "The OpenAPI document")))]
async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], JSON.as_str()).into_response()
}

/// A page to read
#[utoipa::path(get, path = "/docs", tag = "operations", security(()),
    responses((status = 200, content_type = "text/html", body = String, description = "The page")))]
async fn docs() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.as_str()).into_response()
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    h2{margin-top:2.5rem;border-bottom:1px solid #8884}h3{margin:2rem 0 .3rem}code{font-size:.9em}\
    table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #8886;padding:.2rem .6rem;text-align:left;vertical-align:top}\
    :root{color-scheme:light dark}";

/// The document as a page. Writing to a `String` cannot fail, so that results are dropped.
fn page(document: &Value) -> String {
    let title = escaped(&document["info"]["title"]);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title} {}</h1><p>{}</p>\
         <p>The same for programs: <a href=\"/api/openapi.json\">openapi.json</a>. Every failure is <code>{MEDIA_TYPE}</code> \
         with one of the <a href=\"#errors\">codes below</a>; only what is not HTTP at all, behind a request that was, is \
         answered by a status alone. Where the server asks for it, send \
         <code>Authorization: Bearer TOKEN</code>.</p>",
        escaped(&document["info"]["version"]),
        escaped(&document["info"]["description"]),
    );
    let none = serde_json::Map::new();
    for tag in document["tags"].as_array().into_iter().flatten() {
        let _ = write!(page, "<h2>{}</h2><p>{}</p>", escaped(&tag["name"]), escaped(&tag["description"]));
        for (path, item) in document["paths"].as_object().unwrap_or(&none) {
            for (method, operation) in item.as_object().unwrap_or(&none) {
                if operation["tags"][0] == tag["name"] {
                    describe(&mut page, path, method, operation);
                }
            }
        }
    }
    page.push_str("<h2 id=\"errors\">errors</h2><table><tr><th>code<th>status<th>meaning<th>try again");
    for (code, title) in CODES {
        let again = if code.is_retryable() { "yes" } else { "no" };
        let _ = write!(
            page,
            "<tr id=\"{code}\"><td><code>{code}</code><td>{}<td>{title}<td>{again}",
            code.http_status()
        );
    }
    page.push_str("</table></html>\n");
    page
}

fn describe(page: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        page,
        "<h3><code>{} {}</code></h3><p>{}</p>",
        method.to_uppercase(),
        text(path),
        escaped(&operation["summary"])
    );
    let none = serde_json::Map::new();
    if let Some(parameters) = operation["parameters"].as_array() {
        page.push_str("<table><tr><th>parameter<th>in<th>meaning");
        for parameter in parameters {
            let _ = write!(
                page,
                "<tr><td><code>{}</code><td>{}<td>{}",
                escaped(&parameter["name"]),
                escaped(&parameter["in"]),
                escaped(&parameter["description"])
            );
        }
        page.push_str("</table>");
    }
    page.push_str("<table><tr><th>status<th>meaning");
    for (status, response) in operation["responses"].as_object().unwrap_or(&none) {
        let _ = write!(page, "<tr><td>{}<td>{}", text(status), escaped(&response["description"]));
    }
    page.push_str("</table>");
}

fn escaped(value: &Value) -> String {
    text(value.as_str().unwrap_or_default())
}

fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
