//! Media type and file name of a download, chosen by the author of the link.
//!
//! The list excludes types that a browser would run in the server's origin: HTML, SVG, XML and scripts. The
//! policy sent with every blob also keeps the browser from running or loading anything.

use graviton_core::Code;
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// The media types that a blob can be served with; the first is the default.
const MEDIA_TYPES: &[&str] = &[
    "application/octet-stream",
    "application/gzip",
    "application/json",
    "application/pdf",
    "application/zip",
    "application/zstd",
    "audio/flac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "font/woff2",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
    "video/mp4",
    "video/webm",
];

/// The media type that a blob is served with
pub(crate) struct MediaType;

impl utoipa::PartialSchema for MediaType {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(MEDIA_TYPES.iter().copied()))
            .description(Some("The media type that a blob is served with"))
            .into()
    }
}

impl ToSchema for MediaType {}

/// How a browser handles a blob
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) enum Disposition {
    Inline,
    Attachment,
}

/// The most characters in a file name.
const MOST_NAME: usize = 200;

/// The presentation of the blob.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Presentation {
    /// The `Content-Type`, from a list of safe ones; `application/octet-stream` by default
    #[serde(rename = "type")]
    #[param(value_type = Option<MediaType>)]
    media_type: Option<String>,
    /// The `Content-Disposition`: `inline` or `attachment`
    #[param(value_type = Option<Disposition>)]
    disposition: Option<String>,
    /// The file name for saving it; implies `attachment` unless `disposition` is `inline`
    #[param(min_length = 1, max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f/\\\\]+$")]
    filename: Option<String>,
}

/// The characters that an extended parameter may contain unescaped (RFC 8187).
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

impl Presentation {
    /// The media type.
    pub(super) fn media_type(&self) -> Result<HeaderValue, Problem> {
        let wanted = self.media_type.as_deref().unwrap_or(MEDIA_TYPES[0]);
        let known = MEDIA_TYPES.iter().find(|known| **known == wanted).ok_or_else(|| {
            let list = MEDIA_TYPES.join(", ");
            Problem::new(Code::InvalidArgument, format!("`type` must be one of {list}"))
        })?;
        // The bytes come from users, so a browser must guess neither media type nor encoding.
        let text =
            if known.starts_with("text/") { format!("{known}; charset=utf-8") } else { (*known).to_owned() };
        Ok(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(MEDIA_TYPES[0])))
    }

    /// The query parameters of an address that presents the blob like this.
    pub(super) fn into_parameters(self) -> Vec<(String, String)> {
        let named =
            [("type", self.media_type), ("disposition", self.disposition), ("filename", self.filename)];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Adds the headers to a response.
    pub(super) fn describe(&self, headers: &mut HeaderMap) -> Result<(), Problem> {
        headers.insert(CONTENT_TYPE, self.media_type()?);
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
        if let Some(disposition) = self.disposition()? {
            headers.insert(CONTENT_DISPOSITION, disposition);
        }
        Ok(())
    }

    fn disposition(&self) -> Result<Option<HeaderValue>, Problem> {
        let wrong = |why: &str| Problem::new(Code::InvalidArgument, why);
        let kind = match self.disposition.as_deref() {
            None if self.filename.is_none() => return Ok(None),
            None | Some("attachment") => "attachment",
            Some("inline") => "inline",
            Some(_) => return Err(wrong("`disposition` must be `inline` or `attachment`")),
        };
        let Some(name) = self.filename.as_deref() else {
            return Ok(Some(HeaderValue::from_static(kind)));
        };
        if name.is_empty()
            || name.chars().count() > MOST_NAME
            || name.contains(|letter: char| letter.is_control() || "/\\".contains(letter))
        {
            return Err(wrong(
                "`filename` must have 1 to 200 characters, none of them a control character or a slash",
            ));
        }
        let plain: String = name
            .chars()
            .map(|letter| if letter.is_ascii() && letter != '"' { letter } else { '_' })
            .collect();
        let text = format!(
            "{kind}; filename=\"{plain}\"; filename*=UTF-8''{}",
            utf8_percent_encode(name, ATTRIBUTE)
        );
        HeaderValue::from_str(&text).map(Some).map_err(|_| wrong("`filename` is not a valid header value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(filename: &str) -> Presentation {
        Presentation { filename: Some(filename.to_owned()), ..Presentation::default() }
    }

    #[test]
    fn names_and_types() {
        let said = |presentation: Presentation| {
            presentation.disposition().unwrap().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(said(named("a b.txt")), "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt");
        assert_eq!(said(named("é\".txt")), "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A9%22.txt");
        let inline = Presentation { disposition: Some("inline".into()), ..Presentation::default() };
        assert_eq!(said(inline), "inline");
        for bad in ["", "a/b", "a\\b", "a\nb", &"x".repeat(201)] {
            assert_eq!(named(bad).disposition().unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        }
        for bad in ["text/html", "image/svg+xml", "text/javascript", "", "text/plain; charset=x"] {
            let presentation = Presentation { media_type: Some(bad.into()), ..Presentation::default() };
            assert!(presentation.media_type().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_the_header(name in "\\PC{1,40}") {
            if let Ok(Some(value)) = named(&name).disposition() {
                let text = value.to_str().unwrap();
                prop_assert_eq!(text.matches('"').count(), 2);
                prop_assert_eq!(text.matches(';').count(), 2 + name.matches(';').count());
            }
        }
    }
}
