//! The page and its files, built into the binary so that there is nothing to install beside it.

use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// The file of `control/page/` that is served at a path.
macro_rules! page_file {
    ($path:literal, $content_type:ident, $name:literal) => {
        File { path: $path, content_type: $content_type, bytes: include_bytes!(concat!("../../page/", $name)) }
    };
}

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
pub const FILES: &[File] = &[
    page_file!("/", HTML, "index.html"),
    page_file!("/address.js", SCRIPT, "address.js"),
    page_file!("/app.js", SCRIPT, "app.js"),
    page_file!("/memory.js", SCRIPT, "memory.js"),
    page_file!("/call/backoff.js", SCRIPT, "call/backoff.js"),
    page_file!("/call/connection.js", SCRIPT, "call/connection.js"),
    page_file!("/call/emitter.js", SCRIPT, "call/emitter.js"),
    page_file!("/call/gossip.js", SCRIPT, "call/gossip.js"),
    page_file!("/call/publisher.js", SCRIPT, "call/publisher.js"),
    page_file!("/call/room.js", SCRIPT, "call/room.js"),
    page_file!("/call/roster.js", SCRIPT, "call/roster.js"),
    page_file!("/call/signal.js", SCRIPT, "call/signal.js"),
    page_file!("/call/subscriber.js", SCRIPT, "call/subscriber.js"),
    page_file!("/media/level.js", SCRIPT, "media/level.js"),
    page_file!("/media/local.js", SCRIPT, "media/local.js"),
    page_file!("/stats/format.js", SCRIPT, "stats/format.js"),
    page_file!("/stats/graph.js", SCRIPT, "stats/graph.js"),
    page_file!("/stats/sampler.js", SCRIPT, "stats/sampler.js"),
    page_file!("/view/brand.js", SCRIPT, "view/brand.js"),
    page_file!("/view/call.js", SCRIPT, "view/call.js"),
    page_file!("/view/chat.js", SCRIPT, "view/chat.js"),
    page_file!("/view/controls.js", SCRIPT, "view/controls.js"),
    page_file!("/view/dom.js", SCRIPT, "view/dom.js"),
    page_file!("/view/icons.js", SCRIPT, "view/icons.js"),
    page_file!("/view/layout.js", SCRIPT, "view/layout.js"),
    page_file!("/view/lobby.js", SCRIPT, "view/lobby.js"),
    page_file!("/view/menu.js", SCRIPT, "view/menu.js"),
    page_file!("/view/network.js", SCRIPT, "view/network.js"),
    page_file!("/view/notices.js", SCRIPT, "view/notices.js"),
    page_file!("/view/panel.js", SCRIPT, "view/panel.js"),
    page_file!("/view/people.js", SCRIPT, "view/people.js"),
    page_file!("/view/stage.js", SCRIPT, "view/stage.js"),
    page_file!("/view/tile.js", SCRIPT, "view/tile.js"),
    page_file!("/style/base.css", STYLE, "style/base.css"),
    page_file!("/style/lobby.css", STYLE, "style/lobby.css"),
    page_file!("/style/panel.css", STYLE, "style/panel.css"),
    page_file!("/style/room.css", STYLE, "style/room.css"),
];

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

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::FILES;

    #[test]
    fn every_file_of_the_page_is_served_at_its_own_path() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut written = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the page's folder is readable") {
                let path = entry.expect("its entries too").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let name = path.strip_prefix(&root).expect("it is below").display();
                        written.insert(format!("/{name}").replace("/index.html", "/"));
                    }
                }
            }
        }
        let served: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(served, written);
    }
}
