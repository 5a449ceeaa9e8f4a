//! The page and its files, built into the binary so that there is nothing to install beside it.

use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// One file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// Every file of `control/page/` that is served.
pub const FILES: &[File] =
    &[File { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("../../page/index.html") }];

/// `file` as a response. The policy lets the page run its own scripts and reach its own server, and nothing else.
pub fn respond(file: &'static File) -> Response {
    let headers = [
        (CONTENT_TYPE, file.content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (PERMISSIONS_POLICY, "camera=(self), microphone=(self), display-capture=(self)"),
        // A new binary brings new files under old names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, file.bytes).into_response()
}

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
