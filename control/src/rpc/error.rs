//! What can be wrong with a request: the code for programs, the message for whoever wrote the client.

use std::fmt;
use std::time::Duration;

/// The code of an error reply. Those above −32100 and below −32000 are Ringmain's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// −32700: not JSON.
    Parse,
    /// −32600: JSON, but not a request: an array, no `method`, a bad `id`, nested too deep, a key twice.
    InvalidRequest,
    /// −32601: no such method.
    MethodNotFound,
    /// −32602: a parameter is missing, of the wrong type or too long.
    InvalidParams,
    /// −32603: the server's own fault.
    Internal,
    /// −32001: this connection has joined already.
    AlreadyJoined,
    /// −32002: this connection has not joined.
    NotJoined,
    /// −32003: the session description was refused.
    SdpRefused,
    /// −32004: not in this state, such as an offer after `NoPublish` or an answer when there was no offer.
    WrongState,
    /// −32005: no such track in the room.
    UnknownTrack,
    /// −32006: the room has as many peers as it may have.
    RoomFull,
    /// −32007: the server has as many rooms or connections as it may have.
    ServerFull,
    /// −32008: more tracks published, or subscribed, than one peer may have.
    TooManyTracks,
    /// −32029: too many requests or joins per second.
    RateLimited,
}

impl ErrorCode {
    /// Every code, in the order of their declaration.
    pub const ALL: [ErrorCode; 14] = [
        ErrorCode::Parse,
        ErrorCode::InvalidRequest,
        ErrorCode::MethodNotFound,
        ErrorCode::InvalidParams,
        ErrorCode::Internal,
        ErrorCode::AlreadyJoined,
        ErrorCode::NotJoined,
        ErrorCode::SdpRefused,
        ErrorCode::WrongState,
        ErrorCode::UnknownTrack,
        ErrorCode::RoomFull,
        ErrorCode::ServerFull,
        ErrorCode::TooManyTracks,
        ErrorCode::RateLimited,
    ];

    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            ErrorCode::Parse => -32700,
            ErrorCode::InvalidRequest => -32600,
            ErrorCode::MethodNotFound => -32601,
            ErrorCode::InvalidParams => -32602,
            ErrorCode::Internal => -32603,
            ErrorCode::AlreadyJoined => -32001,
            ErrorCode::NotJoined => -32002,
            ErrorCode::SdpRefused => -32003,
            ErrorCode::WrongState => -32004,
            ErrorCode::UnknownTrack => -32005,
            ErrorCode::RoomFull => -32006,
            ErrorCode::ServerFull => -32007,
            ErrorCode::TooManyTracks => -32008,
            ErrorCode::RateLimited => -32029,
        }
    }
}

/// Why a request was refused, said to the peer that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what to change.
    pub message: String,
    /// The setting that is in the way, and how long to wait before trying again.
    pub limit: Option<(&'static str, Duration)>,
}

impl RpcError {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), limit: None }
    }

    /// The same, for a limit that an operator may have set too low, and that is not reached for ever.
    pub fn with_limit(mut self, setting: &'static str, retry_after: Duration) -> Self {
        self.limit = Some((setting, retry_after));
        self
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParams, message)
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.number())
    }
}

impl std::error::Error for RpcError {}
