//! One WebSocket (RFC 6455), from upgrade to close. Owns the socket and its time-outs; what the texts mean is the actor's
//! concern. A client that is silent, does not read, or floods is closed, and with its connection everything of it goes.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use ringmain_shared::limits::SIGNAL_MESSAGE_SIZE_MAX;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use crate::app::connection::{Connection, Outgoing};
use crate::rpc::{self, RpcError};

/// When a connection is asked for a sign of life, and when it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// Time between our pings.
    pub ping_interval: Duration,
    /// Silence that means death.
    pub dead_after: Duration,
}

/// Sets the bounds of a WebSocket before it exists. Compression is not offered: it would let small frames become large.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(SIGNAL_MESSAGE_SIZE_MAX)
        .max_frame_size(SIGNAL_MESSAGE_SIZE_MAX)
        .read_buffer_size(READ_BUFFER_SIZE)
        .write_buffer_size(0)
        // What may wait is bounded before it gets here.
        .max_write_buffer_size(usize::MAX)
}

/// Serves a client until one side ends it.
pub async fn serve(mut socket: Box<WebSocket>, mut connection: Connection, liveness: Liveness) {
    let id = connection.id().0;
    let end = converse(&mut socket, &mut connection, liveness).await;
    tracing::debug!(connection = id, ?end, "connection ends");
    // The peer leaves its room now, however long the goodbye takes.
    drop(connection);
    let answers = matches!(end, End::Closed);
    let frame = end.close_frame();
    let goodbye = async {
        if let Some((code, reason)) = frame {
            let reason = truncated(&reason, REASON_SIZE_MAX).into();
            if socket.send(Message::Close(Some(CloseFrame { code, reason }))).await.is_err() {
                return;
            }
        } else if !answers {
            return;
        }
        // Reading on sends the answer to the client's close frame, or waits for its answer to ours: closing with unread
        // bytes would reset the connection, and the frame might never be seen.
        while let Some(Ok(_)) = socket.recv().await {}
        tokio::time::sleep(LINGER).await;
    };
    let _ = timeout(GOODBYE_TIME, goodbye).await;
}

/// Says why a client is not served, and ends it.
pub async fn refuse(mut socket: WebSocket, error: &RpcError) {
    let reason = truncated(&error.message, REASON_SIZE_MAX).into();
    let goodbye = async {
        let told = socket.send(Message::Text(rpc::failure(None, error).into())).await;
        let close = Message::Close(Some(CloseFrame { code: CLOSE_TRY_AGAIN_LATER, reason }));
        if told.is_ok() && socket.send(close).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = timeout(GOODBYE_TIME, goodbye).await;
}

/// Why a conversation ended.
#[derive(Debug)]
enum End {
    /// The client closed.
    Closed,
    /// The network did.
    Gone,
    /// The actor wants it.
    Asked { code: u16, reason: String },
    /// Silence.
    Dead,
    /// It does not read.
    Slow,
    /// More control frames than any client needs.
    Flood,
    /// A message beyond the bound.
    TooLong,
    /// Not a text.
    Binary,
    /// A text that is not UTF-8.
    NotUtf8,
    /// Against RFC 6455.
    Protocol,
}

impl End {
    /// What to tell the client (RFC 6455 §7.4.1).
    fn close_frame(self) -> Option<(u16, String)> {
        let (code, reason) = match self {
            End::Closed | End::Gone | End::Dead => return None,
            End::Asked { code, reason } => return Some((code, reason)),
            End::Slow => (CLOSE_TRY_AGAIN_LATER, "messages to you pile up: read them, then connect again"),
            End::Flood => (1008, "too many ping or pong frames"),
            End::TooLong => (1009, "a message may have at most 262144 bytes"),
            End::Binary => (1003, "send JSON in text frames"),
            End::NotUtf8 => (1007, "a text frame must be UTF-8"),
            End::Protocol => (1002, "not WebSocket"),
        };
        Some((code, reason.into()))
    }
}

async fn converse(socket: &mut WebSocket, connection: &mut Connection, liveness: Liveness) -> End {
    let mut heard = Instant::now();
    let mut ping_at = heard + liveness.ping_interval;
    let mut read_from = heard;
    let mut texts = Budget::new(TEXTS_PER_SECOND, TEXTS_BURST);
    let mut controls = Budget::new(CONTROLS_PER_SECOND, CONTROLS_BURST);
    loop {
        let dead_at = heard + liveness.dead_after;
        tokio::select! {
            message = async { sleep_until(read_from).await; socket.recv().await } => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        // Over the budget nothing is lost: the client's own socket fills up.
                        read_from = heard + texts.take(heard);
                        if !connection.pass(text.as_str().to_owned()).await {
                            return End::Gone;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                        if !controls.take(heard).is_zero() {
                            return End::Flood;
                        }
                    }
                    Some(Ok(Message::Binary(_))) => return End::Binary,
                    Some(Ok(Message::Close(_))) => return End::Closed,
                    None => return End::Gone,
                    Some(Err(error)) => return end_of(error),
                }
            }
            outgoing = connection.outgoing() => match outgoing {
                Outgoing::Text(text) => {
                    let size = text.len();
                    if let Err(end) = write(socket, connection, Message::Text(text.into())).await {
                        return end;
                    }
                    connection.written(size);
                }
                Outgoing::Close { code, reason } => return End::Asked { code, reason },
                Outgoing::Overflown => return End::Slow,
            },
            () = sleep_until(ping_at.min(dead_at)) => {
                if Instant::now() >= dead_at {
                    return End::Dead;
                }
                ping_at = Instant::now() + liveness.ping_interval;
                if let Err(end) = write(socket, connection, Message::Ping(Default::default())).await {
                    return end;
                }
            }
        }
    }
}

async fn write(socket: &mut WebSocket, connection: &mut Connection, message: Message) -> Result<(), End> {
    tokio::select! {
        written = timeout(WRITE_TIME, socket.send(message)) => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Slow),
        },
        () = connection.overflown() => Err(End::Slow),
    }
}

fn end_of(error: axum::Error) -> End {
    let Ok(error) = error.into_inner().downcast::<tungstenite::Error>() else { return End::Gone };
    match *error {
        tungstenite::Error::Capacity(_) => End::TooLong,
        tungstenite::Error::Utf8(_) => End::NotUtf8,
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        tungstenite::Error::Protocol(_) => End::Protocol,
        _ => End::Gone,
    }
}

/// A token bucket.
#[derive(Debug)]
struct Budget {
    /// Time that one token takes to grow.
    each: Duration,
    burst: Duration,
    /// When the bucket would be full again.
    full_at: Option<Instant>,
}

impl Budget {
    fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second;
        Self { each, burst: each * burst, full_at: None }
    }

    /// Takes a token; how long to wait before the next one is there, zero within the budget.
    fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.unwrap_or(now).max(now) + self.each;
        self.full_at = Some(full_at);
        full_at.duration_since(now).saturating_sub(self.burst)
    }
}

/// As much of `text` as fits in `size_max` bytes.
fn truncated(text: &str, size_max: usize) -> &str {
    let end = (0..=text.len().min(size_max)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// WebSocket close code of the IANA registry: "Try Again Later".
const CLOSE_TRY_AGAIN_LATER: u16 = 1013;
/// RFC 6455 §5.5: 125 bytes of a control frame, less the code.
const REASON_SIZE_MAX: usize = 123;
/// What every connection holds while it is idle. A longer message grows it, and is read in as many pieces.
const READ_BUFFER_SIZE: usize = 2 * 1024;
/// Texts a second that are read from one client; the rooms have a stricter budget of their own, with an answer.
const TEXTS_PER_SECOND: u32 = 200;
const TEXTS_BURST: u32 = 400;
/// Pings and pongs a second.
const CONTROLS_PER_SECOND: u32 = 10;
const CONTROLS_BURST: u32 = 40;
/// Time for one message to be taken by the kernel.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Time for the closing handshake.
const GOODBYE_TIME: Duration = Duration::from_secs(2);
/// Time for the close frame to be read before the connection is gone.
const LINGER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_its_burst_and_then_its_rate() {
        let mut budget = Budget::new(10, 5);
        let start = Instant::now();
        assert!((0..5).all(|_| budget.take(start).is_zero()));
        assert_eq!(budget.take(start), Duration::from_millis(100));
        let later = start + Duration::from_secs(10);
        assert!((0..5).all(|_| budget.take(later).is_zero()), "idle time fills it to the burst and not further");
        assert!(!budget.take(later).is_zero());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("", 3), "");
    }
}
