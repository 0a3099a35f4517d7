//! The OpenAPI schemas and responses that several routes share.

use std::collections::BTreeMap;

use graviton_core::{MAX_BLOB_SIZE, MAX_BLOCK_SIZE};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::problem::MEDIA_TYPE;

const DIGEST: &str = "(blake3|sha-?256):[0-9a-f]{64}";

const EXAMPLE: &str = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5";

/// The ID of a blob.
pub(crate) struct BlobIdText;

impl PartialSchema for BlobIdText {
    fn schema() -> RefOr<Schema> {
        name(
            format!("^{DIGEST}:(0|{})$", whole_number(MAX_BLOB_SIZE)),
            "The ID of a blob: algorithm, digest of the whole content, and length in bytes".to_owned(),
        )
    }
}

impl ToSchema for BlobIdText {}

/// The key of a block.
pub(crate) struct BlockKeyText;

impl PartialSchema for BlockKeyText {
    fn schema() -> RefOr<Schema> {
        name(
            format!("^{DIGEST}:({})$", whole_number(MAX_BLOCK_SIZE as u64)),
            format!("The key of a block: algorithm, digest, and size in bytes, at most {MAX_BLOCK_SIZE}"),
        )
    }
}

impl ToSchema for BlockKeyText {}

fn name(pattern: String, description: String) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .description(Some(description))
        .examples([EXAMPLE])
        .into()
}

/// A regular expression for the whole numbers from 1 to `most`, without leading zeros. It is exact, so that
/// a generated client accepts and refuses the same names as the server.
fn whole_number(most: u64) -> String {
    let digits = most.to_string();
    let mut forms = Vec::new();
    if digits.len() > 1 {
        forms.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    // The numbers of the same length: equal up to a digit, smaller at that digit, and any digits after it.
    for (index, digit) in digits.bytes().enumerate() {
        let least = if index == 0 { b'1' } else { b'0' };
        if digit > least {
            let (least, below) = (char::from(least), char::from(digit - 1));
            let behind = digits.len() - index - 1;
            forms.push(format!("{}[{least}-{below}][0-9]{{{behind}}}", &digits[..index]));
        }
    }
    forms.push(digits);
    forms.join("|")
}

/// The number of a job
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) struct JobNumber(u64);

/// Bytes of any kind.
pub(crate) struct Content;

impl PartialSchema for Content {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
    }
}

impl ToSchema for Content {}

/// Groups of failures that routes share: one type for each group, with status and meaning of each failure.
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
    /// Every route except those that need no authentication.
    Common:
        "400" "The request is not valid: `invalid-argument`, `invalid-id`",
        "401" "Authentication is missing or not valid: `unauthorized`",
        "403" "The token does not have the required scope: `forbidden`",
        "431" "The request headers are too large: `too-large`",
        "429" "The rate limit is exceeded: `rate-limited`. `Retry-After` says when to try again",
        "500" "The server or its storage failed: `corrupt-block`, `missing-block`, `corrupt-database`, `io`, `latched`, `internal`",
        "503" "Temporarily unavailable: `backend-unavailable`, `writer-expired`, `overloaded`. `Retry-After` says when to try again";
    /// Routes that name a blob, a block, a session or a job.
    NotFound: "404" "Not found: `not-found`";
    /// The commit of a manifest.
    MissingBlocks: "404" "Some blocks are not stored: `not-found`, with their keys in `missing`. Put them, then commit again";
    /// Routes that take a range.
    RangeNotSatisfiable: "416" "The range starts after the end of the blob: `range-not-satisfiable`";
    /// Routes that take conditions.
    PreconditionFailed: "412" "`If-Match` or `If-None-Match` does not hold: `conflict`";
    /// Routes that start a job.
    OtherJob: "409" "A job of this kind runs with other options: `conflict`. `Location` is its path";
    /// Routes that take JSON.
    BodyProblems:
        "408" "The request body arrived too slowly: `timeout`",
        "413" "The request body is too large: `too-large`",
        "415" "The request body is not JSON: `unsupported`";
    /// Routes that take a stream.
    UploadProblems:
        "408" "The request body arrived too slowly: `timeout`",
        "413" "The request body is too large: `too-large`",
        "507" "There is no space left: `no-space`, `quota-exceeded`";
    /// Routes that make clients upload.
    NoRoom: "507" "There is no space left: `no-space`, `quota-exceeded`";
    /// Routes that take content as it is.
    NotContent: "415" "The request body is a form, or is encoded (`Content-Encoding`): `unsupported`";
    /// Routes that take content for a given ID.
    DigestMismatch: "422" "The content does not match its ID: `digest-mismatch`";
    /// Routes without authentication that take parameters.
    Invalid: "400" "The request is not valid: `invalid-argument`";
    /// The readiness check.
    Unavailable: "503" "The server is not ready: `backend-unavailable`, `overloaded`";
}

#[cfg(test)]
mod tests {
    use super::*;
    use graviton_core::{BlobId, BlockKey};
    use regex::Regex;

    fn pattern<T: PartialSchema>() -> Regex {
        let schema = serde_json::to_value(T::schema()).unwrap();
        Regex::new(schema["pattern"].as_str().unwrap()).unwrap()
    }

    fn sizes(most: u64) -> Vec<u64> {
        let powers = (0..20).map(|power| 10_u64.pow(power)).flat_map(|power| [power - 1, power, power + 1]);
        powers.chain([most - 1, most, most + 1, most / 2, most / 10 * 10, u64::MAX]).collect()
    }

    #[test]
    fn the_patterns_accept_exactly_the_names_that_the_engine_parses() {
        let (blob, block) = (pattern::<BlobIdText>(), pattern::<BlockKeyText>());
        let digest = format!("sha256:{}", "0".repeat(64));
        for size in sizes(MAX_BLOB_SIZE).into_iter().chain(sizes(MAX_BLOCK_SIZE as u64)) {
            let name = format!("{digest}:{size}");
            assert_eq!(blob.is_match(&name), name.parse::<BlobId>().is_ok(), "{name}");
            assert_eq!(block.is_match(&name), name.parse::<BlockKey>().is_ok(), "{name}");
        }
        assert!(blob.is_match(&format!("{digest}:{MAX_BLOB_SIZE}")));
        assert!(block.is_match(&format!("{digest}:{MAX_BLOCK_SIZE}")));
        for bad in ["", "01", "-1", "+1", "1 ", " 1", "1x", "1.0"] {
            let name = format!("{digest}:{bad}");
            assert!(!blob.is_match(&name) && !block.is_match(&name), "{name}");
        }
        assert!(!blob.is_match(&format!("{}:1", digest.to_uppercase())));
        let other = digest.replace("sha256", "sha-256");
        assert!(blob.is_match(&format!("{other}:1")) && format!("{other}:1").parse::<BlobId>().is_ok());
    }

    #[test]
    fn whole_numbers_up_to_a_limit() {
        for most in [1, 9, 10, 11, 19, 20, 99, 100, 101, 1_234, 2_000] {
            let pattern = Regex::new(&format!("^({})$", whole_number(most))).unwrap();
            for number in 0..3_000 {
                let expected = (1..=most).contains(&number);
                assert_eq!(pattern.is_match(&number.to_string()), expected, "{number} of {most}");
            }
        }
    }
}
