//! What is reachable over TCP: the page, the WebSocket, `/healthz` and `/metrics`.
//!
//! A connection passes [`listen`] (limits, [`tls`], bounds on the HTTP head), then a route of this file, and, upgraded,
//! lives in [`socket`] until it is closed, dead, or too slow. [`page`] and [`metrics`] make what is served.

pub mod gate;
pub mod listen;
pub mod metrics;
pub mod page;
pub mod socket;
pub mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::connection::Door;
use crate::rpc::{ErrorCode, RpcError};
use gate::{Gate, Permit};

/// What the routes need to know.
#[derive(Clone, Debug)]
pub struct Routes {
    /// To the actor.
    pub door: Door,
    /// Origins that may open the WebSocket; empty is any.
    pub allow_origin: Arc<[String]>,
    /// Liveness of WebSockets.
    pub liveness: socket::Liveness,
    /// Serve `/metrics` here too.
    pub metrics: bool,
    /// Counts TCP connections, for the metrics.
    pub connections: Arc<Gate>,
    /// Counts WebSockets.
    pub websockets: Arc<Gate>,
}

impl Routes {
    /// The main listener's routes.
    pub fn router(self) -> Router {
        let mut router = Router::new().route("/ws", get(upgrade)).route("/healthz", get(health));
        for file in page::FILES {
            router = router.route(file.path, get(|| async { page::respond(file) }));
        }
        if self.metrics {
            router = router.route("/metrics", get(scrape));
        }
        router.with_state(self)
    }

    /// The routes of the listener for monitoring.
    pub fn metrics_router(self) -> Router {
        Router::new().route("/metrics", get(scrape)).route("/healthz", get(health)).with_state(self)
    }
}

async fn upgrade(
    State(routes): State<Routes>,
    Extension(permit): Extension<Permit>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_allowed(&routes.allow_origin, &headers) {
        return (StatusCode::FORBIDDEN, "this origin may not connect; see allow_origin\n").into_response();
    }
    let upgrade = socket::bounded(upgrade);
    let Some(place) = routes.websockets.admit(permit.from()) else {
        // A page sees nothing of an HTTP answer to its WebSocket: so it is told on the WebSocket.
        return upgrade.on_upgrade(move |socket| async move {
            socket::refuse(socket, &too_many_websockets()).await;
            drop(permit);
        });
    };
    let Some(connection) = routes.door.open(permit.from()) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down\n").into_response();
    };
    upgrade.on_upgrade(move |socket| {
        // In a place of its own, as its task would hold it several times over.
        let socket = Box::new(socket);
        async move {
            socket::serve(socket, connection, routes.liveness).await;
            drop((permit, place));
        }
    })
}

fn too_many_websockets() -> RpcError {
    let message = "your address has as many signalling connections as it may have (limits.websockets_per_ip); \
                   close some or try again later";
    RpcError::new(ErrorCode::ServerFull, message).with_limit("limits.websockets_per_ip", WEBSOCKET_RETRY_AFTER)
}

/// Browsers send the page's origin with every WebSocket (RFC 6455 §10.2). Other programs need not send one, and could
/// send any: the list keeps foreign pages out, not foreign programs.
fn is_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    origins.all(|origin| {
        origin.to_str().is_ok_and(|origin| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
    })
}

/// 200 while the actor answers, every thread of the data plane turns and every worker has been heard of lately.
async fn health(State(routes): State<Routes>, headers: HeaderMap) -> Response {
    let Ok(Some(report)) = tokio::time::timeout(REPORT_TIME, routes.door.report()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the control plane does not answer\n").into_response();
    };
    let ailments = report.ailments();
    let (status, words) = match ailments.is_empty() {
        true => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, ailments.join("; ")),
    };
    let wants_json = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if wants_json.is_some_and(|accept| accept.contains("application/json")) {
        let body = serde_json::json!({
            "status": words,
            "version": env!("CARGO_PKG_VERSION"),
            "workers": report.worker_count,
            "silent_workers": report.silent_workers(),
            "stalled_threads": report.stalled,
            "rooms": report.counts.rooms,
            "peers": report.counts.peers,
            "uptime_s": report.uptime.as_secs(),
        });
        return (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], format!("{body}\n"))
            .into_response();
    }
    (status, [(CACHE_CONTROL, "no-store")], format!("{words}\n")).into_response()
}

async fn scrape(State(routes): State<Routes>) -> Response {
    match tokio::time::timeout(REPORT_TIME, routes.door.report()).await {
        Ok(Some(report)) => {
            let refused = [
                ("connections", routes.connections.refused()),
                ("websockets_per_ip", routes.websockets.refused()),
                ("joins", report.counts.joins_refused),
            ];
            let page = metrics::render(&report, &refused);
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the control plane does not answer\n").into_response(),
    }
}

/// Time after which a refused client should try again.
const WEBSOCKET_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
/// Time for the actor to answer.
const REPORT_TIME: std::time::Duration = std::time::Duration::from_secs(2);
