//! What handlers take out of a request, with our own errors where it is not there or malformed.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use graviton_core::{Code, Error};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// An id or key from the path: parsed strictly, before anything is done.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err = Error>> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Code::InvalidId, "what the path names is not Unicode text"))?;
        Ok(Named(text.parse().map_err(Problem::from)?))
    }
}

/// The parameters of the query.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => {
                Err(Problem::new(Code::InvalidArgument, format!("the query: {}", rejection.body_text())))
            }
        }
    }
}

/// A limit that was asked for, or its default.
pub(crate) fn most(name: &str, wanted: Option<u64>, default: u64, most: u64) -> Result<usize, Problem> {
    match wanted.unwrap_or(default) {
        limit if (1..=most).contains(&limit) => Ok(limit as usize),
        _ => {
            Err(Problem::new(Code::InvalidArgument, format!("`{name}` has to be a number from 1 to {most}")))
        }
    }
}
