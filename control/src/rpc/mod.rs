//! The ion JSON-RPC dialect: text from a WebSocket in, [`Request`]s out, and replies and notifications as text.
//! Owns the grammar, its bounds and the error table. Knows nothing of rooms.
//!
//! One JSON object per text frame (JSON-RPC 2.0, where `"jsonrpc":"2.0"` may be absent). A message with an `id` (a string
//! of at most 64 bytes or an unsigned number, echoed as it came) is a request and gets one reply; one without is a
//! notification and gets none, not even an error. Members that are not listed here are ignored. Requests of one connection
//! are served in the order in which they came.
//!
//! # From the client
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `join` | `sid`: the room. `uid`: the peer, made up when absent; a peer of the same uid in the room is replaced. `offer`: `{type,sdp}` of the publisher connection. `config`: `{NoPublish, NoSubscribe, NoAutoSubscribe}`, keys in any case. `info`: any JSON up to 1 KiB, shown to the others | the answer `{type,sdp}` with `uid` beside it; only `{uid}` when `NoPublish` |
//! | `offer` | `desc`: `{type,sdp}`, the next offer of the publisher connection | the answer `{type,sdp}` |
//! | `answer` | `desc`: `{type,sdp}`, the answer to our last `offer` | `null` (ion sends it as a notification) |
//! | `trickle` | `target`: 0 publisher, 1 subscriber. `candidate`: `{candidate,…}` or null. Checked, then unused: Ringmain is ICE-lite and learns addresses from the peer's checks | `null` (ion sends it as a notification) |
//! | `tracks` | none | `{"tracks":[{uid,streamId,trackId,kind,subscribed},…]}`, everything that is published in the room |
//! | `subscribe` | `tracks`: up to 64 of `{streamId,trackId}`; without `trackId` every track of the stream. All or, with an error, none | `{"tracks":[{streamId,trackId},…]}`, those named |
//! | `iceServers` | none; may be asked before `join` | `{"iceServers":[{urls,username,credential}],"ttl":seconds}`, to be given to `RTCPeerConnection`; an empty list where TURN is off. The credential is this connection's and ends with it; asking again within `ttl` makes it last longer |
//! | `unsubscribe` | as `subscribe`; names that are not (or no longer) there are passed over | as `subscribe` |
//!
//! With `NoPublish` the `offer` may be absent and is not looked at. `subscribe` and `unsubscribe` also serve peers that
//! joined without `NoAutoSubscribe`; a track that one of them unsubscribed stays so until it asks again.
//!
//! # From the server, all notifications
//!
//! | method | params |
//! | --- | --- |
//! | `offer` | `{type,sdp}`: the offer of the subscriber connection. One at a time: the next comes after its answer, or when none came for ten seconds |
//! | `iceconnectionstate` | `{target, state}`: as seen by the server; `new`, `checking`, `connected`, `disconnected`, `failed`, `closed` |
//! | `peerevent` | `{state, peers:[{uid,info},…]}`: `join` or `leave`. The first ones list who is there already; oneself is listed too |
//! | `trackevent` | `{state, tracks:[{uid,streamId,trackId,kind},…]}`: `add` or `remove`. The first ones list what is there already |
//!
//! `streamId` and `trackId` are the ids that the subscriber's browser shows. They are the publisher's own unless another
//! peer of the room already uses the same; then they get a suffix.
//!
//! # On the `ion-sfu` data channel of the subscriber connection
//!
//! | from | text | meaning |
//! | --- | --- | --- |
//! | subscriber | `{streamId, video, audio, framerate}` | what of a stream is wanted: `video` high, medium, low or none; `audio` true or false; `framerate` high, medium, low. What is absent or unknown stays as it is; the latest wish holds |
//! | publisher | `{streamId, layers}` | the simulcast layers that it sends from now on, such as `["high","low"]` |
//! | either | `ping` | answered by `pong` |
//! | server | `{"method":"activeLayer","params":{streamId, activeLayer, availableLayers}}` | the layer of a stream that arrives, when it changes and when the publisher has spoken |
//! | server | `{"method":"audioLevels","params":[streamId,…]}` | who speaks, loudest first, when it changes |
//!
//! # Errors
//!
//! `{"id":…,"error":{"code":…,"message":…},"jsonrpc":"2.0"}`; the codes are those of [`ErrorCode`]. Messages say what to
//! change. Where a limit of the server is in the way, `error.data` is `{limit, retry_after}`: the setting's name, and the
//! seconds to wait before trying again. One with `"id":null` before anything was asked says why the connection ends. A WebSocket that the
//! server closes says why: 4001, the same uid joined from elsewhere; 4002, every media connection of the peer has ended; 1008, far more
//! requests than are served.

mod error;
mod fields;
mod json;
mod message;
mod rate;
mod request;
#[cfg(test)]
mod tests;

pub use error::{ErrorCode, RpcError};
pub(crate) use json::parse as parse_json;
pub use json::{DEPTH_MAX, NODES_MAX};
pub use message::{Target, failure, notification, reply};
pub use rate::TokenBucket;
pub use request::{
    Call, INFO_SIZE_MAX, Join, NAME_SIZE_MAX, REQUEST_ID_SIZE_MAX, Recipient, Refusal, Request, RequestId,
    TRACKS_PER_CALL_MAX, TrackName, Trickle,
};
