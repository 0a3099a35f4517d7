//! Links to blobs, for clients that cannot send a token (`auth::links`).

#![allow(unused_qualifications, reason = "utoipa's macros qualify what is in scope")]

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use graviton_core::{BlobId, Code};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::presentation::Presentation;
use crate::app::Shared;
use crate::client::{Client, Requester};
use crate::extract::{Named, Params, most};
use crate::problem::Problem;
use crate::schemas::{Common, NotFound};
use crate::timestamp::{now, rfc3339};

/// The default lifetime of a link in seconds, and the longest one.
const LIFETIME: u64 = 3_600;
const LONGEST: u64 = 604_800;

/// A link to a blob
#[derive(Debug, Serialize, ToSchema)]
struct Link {
    /// The address; everyone who has it can read the blob
    #[schema(format = "uri-reference")]
    url: String,
    /// When it expires, in UTC
    #[schema(format = "date-time")]
    expires_at: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LinkParams {
    /// The seconds until the link expires; 3600 by default
    #[param(minimum = 1, maximum = 604_800)]
    expires_in: Option<u64>,
}

/// The parameters of a link. If it has a signature, `auth` has checked it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Signed {
    /// When the link expires, in seconds since 1970; only together with `signature`
    expires: Option<i64>,
    /// The signature of a link: with it the request needs no token
    #[param(pattern = "^[A-Za-z0-9_-]{43}$")]
    signature: Option<String>,
}

impl Signed {
    /// Refuses a link with only one of the two parameters.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.expires.is_none() || self.signature.is_some() {
            return Ok(());
        }
        let why = "`expires` is a parameter of a link, and its `signature` is missing";
        Err(Problem::new(Code::InvalidArgument, why))
    }
}

/// Make a link to a blob. Everyone who has it can read the blob, presented as it says, until it expires
#[utoipa::path(post, path = "/api/blobs/{id}/links", tag = "blobs", operation_id = "make_link",
    params(("id" = crate::schemas::BlobIdText, Path, description = "The blob"), Presentation, LinkParams),
    responses(
        (status = 201, body = Link, description = "The link",
            headers(("Location" = String, description = "The path and the query of the link"))),
        NotFound, Common))]
pub(super) async fn make(
    State(app): State<Shared>,
    Extension(requester): Extension<Requester>,
    Named(id): Named<BlobId>,
    Params(presentation): Params<Presentation>,
    Params(params): Params<LinkParams>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(links) = app.auth().links() else {
        let why = "this server makes no links; whoever runs it can set GRAVITON_HTTP_LINK_KEYS";
        return Err(Problem::new(Code::NotFound, why));
    };
    // Do not make a link that would be refused.
    presentation.describe(&mut HeaderMap::new())?;
    let lifetime = most("expires_in", params.expires_in, LIFETIME, LONGEST)? as u64;
    app.store().stat(&id).await?;
    let expires = now() / 1_000 + lifetime as i64;
    let query = links.query(&id, presentation.into_parameters(), expires);
    let path = format!("/api/blobs/{id}?{query}");
    let client = Client::of(app.settings(), requester.connection.peer(), &uri, &headers);
    let origin = match (client.host, client.is_https) {
        ("", _) => String::new(),
        (host, true) => format!("https://{host}"),
        (host, false) => format!("http://{host}"),
    };
    let link = Link {
        url: format!("{origin}{}{path}", app.settings().prefix),
        expires_at: rfc3339(expires.saturating_mul(1_000)),
    };
    let headers = [(LOCATION, path), (CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(link)).into_response())
}
