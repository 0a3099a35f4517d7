//! As what a blob is sent: media type and file name, chosen by the one who links to it.
//!
//! What a browser would run in the server's origin is not on the list: no HTML, SVG, XML or script. And the policy that
//! goes with every blob lets nothing of it run or load.

use graviton_core::Code;
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;

/// The media types that a blob can be sent as; the first one is the default.
pub(crate) const MEDIA_TYPES: &[&str] = &[
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

/// Letters that a file name has at most.
const MOST_NAME: usize = 200;

/// How the blob is to be sent.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Presentation {
    /// Its `Content-Type`, from a list of safe ones; `application/octet-stream` if it is not given
    #[serde(rename = "type")]
    #[param(value_type = Option<crate::documented::MediaType>)]
    media_type: Option<String>,
    /// Its `Content-Disposition`: `inline` or `attachment`
    #[param(value_type = Option<crate::documented::Disposition>)]
    disposition: Option<String>,
    /// The name that a browser saves it under; makes it an attachment, unless `inline` is asked for
    #[param(min_length = 1, max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f/\\\\]+$")]
    filename: Option<String>,
}

/// What may be left as it is in an extended parameter (RFC 8187).
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
            Problem::new(Code::InvalidArgument, format!("`type` has to be one of {list}"))
        })?;
        // The bytes are the user's; a browser is to guess neither their type nor their encoding.
        let text =
            if known.starts_with("text/") { format!("{known}; charset=utf-8") } else { (*known).to_owned() };
        Ok(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(MEDIA_TYPES[0])))
    }

    /// Says it in the headers of a response.
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
            Some(_) => return Err(wrong("`disposition` has to be inline or attachment")),
        };
        let Some(name) = self.filename.as_deref() else {
            return Ok(Some(HeaderValue::from_static(kind)));
        };
        if name.is_empty()
            || name.chars().count() > MOST_NAME
            || name.contains(|letter: char| letter.is_control() || "/\\".contains(letter))
        {
            return Err(wrong(
                "`filename` has to be a name of 1 to 200 letters, without control characters and slashes",
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
        HeaderValue::from_str(&text).map(Some).map_err(|_| wrong("`filename` cannot be sent"))
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
