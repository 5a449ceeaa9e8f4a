//! What is written to a client: replies, errors and notifications, each one line of JSON.

use ringmain_shared::transport::Side;
use serde_json::{Value, json};

use super::error::RpcError;
use super::request::RequestId;

/// The `target` of the dialect: which of a peer's two connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target(pub Side);

impl Target {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self.0 {
            Side::Publisher => 0,
            Side::Subscriber => 1,
        }
    }
}

/// The reply to a request that was done.
pub fn reply(id: &RequestId, result: Value) -> String {
    json!({"id": id.to_value(), "result": result, "jsonrpc": "2.0"}).to_string()
}

/// The reply to a request that was refused; the id is null when it could not be read.
pub fn failure(id: Option<&RequestId>, error: &RpcError) -> String {
    let id = id.map_or(Value::Null, RequestId::to_value);
    let mut body = json!({"code": error.code.number(), "message": error.message});
    if let (Some(body), Some((limit, retry_after))) = (body.as_object_mut(), error.limit) {
        body.insert("data".to_owned(), json!({"limit": limit, "retry_after": retry_after.as_secs_f64()}));
    }
    json!({"id": id, "error": body, "jsonrpc": "2.0"}).to_string()
}

/// A message that awaits no reply.
pub fn notification(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}
