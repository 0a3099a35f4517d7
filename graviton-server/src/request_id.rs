//! The ID of a request, which its response, its problem and the log carry.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The ID that the client gave, if it is a plain word, or a fresh one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    if let Some(given) = headers.get(&HEADER).filter(is_plain) {
        return given.clone();
    }
    HeaderValue::from_str(&fresh()).unwrap_or(HeaderValue::from_static("none"))
}

/// An ID that no other request has.
pub(crate) fn fresh() -> String {
    /// Distinguishes several servers and restarts.
    static START: LazyLock<u64> = LazyLock::new(|| {
        let mut bytes = [0; 8];
        let _ = getrandom::fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{:x}", *START, LAST.fetch_add(1, Ordering::Relaxed))
}
