//! Extractors for handlers. They answer with a [`Problem`] if something is missing or malformed.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use graviton_core::{Code, Error};
use http::request::Parts;
use serde::de::{DeserializeOwned, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::problem::Problem;

/// An ID or key from the path, parsed strictly before anything else happens.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err = Error>> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Code::InvalidId, "the ID in the path is not valid UTF-8"))?;
        Ok(Named(text.parse().map_err(Problem::from)?))
    }
}

/// The query parameters.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => {
                Err(Problem::new(Code::InvalidArgument, format!("invalid query: {}", rejection.body_text())))
            }
        }
    }
}

/// A whole number in JSON within these bounds. `7.0` counts as one, as in JSON Schema.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Whole<const LEAST: u64, const MOST: u64>(pub(crate) u64);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Whole<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const LEAST: u64, const MOST: u64>;
        impl<const LEAST: u64, const MOST: u64> Visitor<'_> for Number<LEAST, MOST> {
            type Value = Whole<LEAST, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {LEAST} to {MOST}")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                if (LEAST..=MOST).contains(&number) {
                    return Ok(Whole(number));
                }
                Err(E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
                // Beyond 2^53 a double does not represent every whole number.
                let exact = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
                if exact {
                    self.visit_u64(number as u64)
                } else {
                    Err(E::invalid_value(Unexpected::Float(number), &self))
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// The requested limit, or its default.
pub(crate) fn most(name: &str, wanted: Option<u64>, default: u64, most: u64) -> Result<usize, Problem> {
    match wanted.unwrap_or(default) {
        limit if (1..=most).contains(&limit) => Ok(limit as usize),
        _ => Err(Problem::new(Code::InvalidArgument, format!("`{name}` must be a number from 1 to {most}"))),
    }
}
