//! What a client asks: one message, parsed once into a [`Call`] whose members have been checked.

use serde_json::{Map, Value};

use super::error::{ErrorCode, RpcError};
use super::fields::Fields;
use super::json;

/// Bytes of a request's id when it is a string.
pub const REQUEST_ID_SIZE_MAX: usize = 64;
/// Bytes of a room's or a peer's name, and of a stream's or a track's id.
pub const NAME_SIZE_MAX: usize = 256;
/// Bytes of `info` as compact JSON.
pub const INFO_SIZE_MAX: usize = 1024;
/// Tracks that one `subscribe` or `unsubscribe` may name.
pub const TRACKS_PER_CALL_MAX: usize = 64;
/// Bytes of one trickled candidate line.
const CANDIDATE_SIZE_MAX: usize = 1024;

/// One message of a client that asks for something known.
#[derive(Debug)]
pub struct Request {
    /// Where the reply goes; a notification has none.
    pub id: Option<RequestId>,
    /// What is asked.
    pub call: Call,
}

impl Request {
    /// Parses a text frame. A refusal says who, if anyone, is to be told.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let nobody_known = |error| Refusal { recipient: Recipient::Unknown, error };
        let Value::Object(members) = json::parse(text).map_err(nobody_known)? else {
            return Err(nobody_known(RpcError::request("a message is one JSON object; batches are not served")));
        };
        let id = RequestId::of(&members).map_err(nobody_known)?;
        match Call::of(&members) {
            Ok(call) => Ok(Self { id, call }),
            Err(error) => {
                let recipient = match id {
                    Some(id) => Recipient::Request(id),
                    // JSON-RPC 2.0 §4.1: a notification gets no reply, but what is not a request at all gets one (§5.1).
                    None if error.code == ErrorCode::InvalidRequest => Recipient::Unknown,
                    None => Recipient::Nobody,
                };
                Err(Refusal { recipient, error })
            }
        }
    }
}

/// A message that was not understood.
#[derive(PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Who is told.
    pub recipient: Recipient,
    /// What is wrong.
    pub error: RpcError,
}

/// Whom an error is for.
#[derive(PartialEq, Eq, Debug)]
pub enum Recipient {
    /// The request of this id.
    Request(RequestId),
    /// A request whose id could not be read: told under the id null.
    Unknown,
    /// A notification, which gets no reply.
    Nobody,
}

/// The id of a request, to be echoed as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestId {
    /// As `ion-sdk-js` sends it (a UUID).
    Text(String),
    /// An unsigned number.
    Number(u64),
}

impl RequestId {
    /// The id as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            RequestId::Text(text) => Value::String(text.clone()),
            RequestId::Number(number) => Value::from(*number),
        }
    }

    /// JSON-RPC 1.0 clients mark a notification by an id of null.
    fn of(message: &Map<String, Value>) -> Result<Option<Self>, RpcError> {
        match message.get("id") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= REQUEST_ID_SIZE_MAX => Ok(Some(Self::Text(text.clone()))),
            Some(Value::Number(number)) if number.is_u64() => Ok(number.as_u64().map(Self::Number)),
            Some(_) => Err(RpcError::request(format!(
                "id must be a string of at most {REQUEST_ID_SIZE_MAX} bytes or an unsigned number"
            ))),
        }
    }
}

/// What is asked.
#[derive(Debug)]
pub enum Call {
    /// Come into a room.
    Join(Box<Join>),
    /// The next offer of the publisher connection: its SDP.
    Offer(String),
    /// The answer to our offer of the subscriber connection: its SDP.
    Answer(String),
    /// A candidate of the peer.
    Trickle(Trickle),
    /// What is published in the room?
    Tracks,
    /// By which relays may I come?
    IceServers,
    /// Forward these.
    Subscribe(Vec<TrackName>),
    /// Stop forwarding these.
    Unsubscribe(Vec<TrackName>),
}

/// The parameters of `join`.
#[derive(Debug)]
pub struct Join {
    /// The room.
    pub sid: String,
    /// The peer; to be made up when `None`.
    pub uid: Option<String>,
    /// SDP of the publisher connection; `None` only when the peer joined with `NoPublish`.
    pub offer: Option<String>,
    /// Open a subscriber connection.
    pub subscribe: bool,
    /// Subscribe to every track of the room without being asked.
    pub auto_subscribe: bool,
    /// For the others to see, at most [`INFO_SIZE_MAX`].
    pub info: Option<Value>,
}

/// The parameters of `trickle`, which are checked and then not needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trickle {
    /// 0: publisher, 1: subscriber.
    pub target: u8,
    /// An empty or absent candidate: there are no more.
    pub end: bool,
}

/// A track, or every track of a stream, by the ids that subscribers see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackName {
    /// The MediaStream.
    pub stream_id: String,
    /// The track in it; `None` names all.
    pub track_id: Option<String>,
}

impl Call {
    fn of(message: &Map<String, Value>) -> Result<Self, RpcError> {
        if message.get("jsonrpc").is_some_and(|version| version != "2.0") {
            return Err(RpcError::request("jsonrpc must be \"2.0\" or absent"));
        }
        let method = match message.get("method") {
            Some(Value::String(method)) => method.as_str(),
            Some(_) => return Err(RpcError::request("method must be a string")),
            None => return Err(RpcError::request("method is missing")),
        };
        let nothing = Value::Object(Map::new());
        let params = match message.get("params") {
            None | Some(Value::Null) => &nothing,
            Some(params) => params,
        };
        let params = || Fields::of("params", params);
        match method {
            "join" => Ok(Call::Join(Box::new(Join::of(&params()?)?))),
            "offer" => Ok(Call::Offer(description(&params()?.object("desc")?, "offer")?)),
            "answer" => Ok(Call::Answer(description(&params()?.object("desc")?, "answer")?)),
            "trickle" => Ok(Call::Trickle(Trickle::of(&params()?)?)),
            "tracks" => Ok(Call::Tracks),
            "iceServers" => Ok(Call::IceServers),
            "subscribe" => Ok(Call::Subscribe(TrackName::list(&params()?)?)),
            "unsubscribe" => Ok(Call::Unsubscribe(TrackName::list(&params()?)?)),
            _ => Err(RpcError::new(
                ErrorCode::MethodNotFound,
                "no such method; there are join, offer, answer, trickle, tracks, subscribe, unsubscribe, iceServers",
            )),
        }
    }
}

impl Join {
    fn of(params: &Fields<'_>) -> Result<Self, RpcError> {
        let config = Config::of(params)?;
        let uid = match params.optional("uid") {
            None => None,
            Some(Value::String(empty)) if empty.is_empty() => None,
            Some(_) => Some(params.name("uid", NAME_SIZE_MAX)?.to_owned()),
        };
        let info = params.optional("info").cloned();
        if info.as_ref().is_some_and(|info| info.to_string().len() > INFO_SIZE_MAX) {
            return Err(RpcError::params(format!("params.info has more than {INFO_SIZE_MAX} bytes")));
        }
        let offer = match config.publish {
            true => Some(description(&params.object("offer")?, "offer")?),
            false => None,
        };
        Ok(Self {
            sid: params.name("sid", NAME_SIZE_MAX)?.to_owned(),
            uid,
            offer,
            subscribe: config.subscribe,
            auto_subscribe: config.auto_subscribe,
            info,
        })
    }
}

/// ion-sfu's `JoinConfig`.
struct Config {
    publish: bool,
    subscribe: bool,
    auto_subscribe: bool,
}

impl Config {
    /// Go's decoder, which ion uses, matches keys in any case.
    fn of(params: &Fields<'_>) -> Result<Self, RpcError> {
        let mut config = Self { publish: true, subscribe: true, auto_subscribe: true };
        if params.optional("config").is_none() {
            return Ok(config);
        }
        for (path, key, value) in params.object("config")?.each() {
            let wish = match key {
                _ if key.eq_ignore_ascii_case("NoPublish") => &mut config.publish,
                _ if key.eq_ignore_ascii_case("NoSubscribe") => &mut config.subscribe,
                _ if key.eq_ignore_ascii_case("NoAutoSubscribe") => &mut config.auto_subscribe,
                _ => continue,
            };
            match value {
                Value::Bool(without) => *wish = !without,
                Value::Null => {}
                _ => return Err(RpcError::params(format!("{path} must be true or false"))),
            }
        }
        Ok(config)
    }
}

impl Trickle {
    fn of(params: &Fields<'_>) -> Result<Self, RpcError> {
        let target = match params.required("target")?.as_u64() {
            Some(0) => 0,
            Some(1) => 1,
            _ => return Err(RpcError::params("params.target must be 0 (publisher) or 1 (subscriber)")),
        };
        if params.optional("candidate").is_none() {
            return Ok(Self { target, end: true });
        }
        let candidate = params.object("candidate")?;
        let line = match candidate.optional("candidate") {
            Some(_) => candidate.text("candidate")?,
            None => "",
        };
        if line.len() > CANDIDATE_SIZE_MAX {
            return Err(RpcError::params(format!(
                "params.candidate.candidate has more than {CANDIDATE_SIZE_MAX} bytes"
            )));
        }
        Ok(Self { target, end: line.is_empty() })
    }
}

impl TrackName {
    fn list(params: &Fields<'_>) -> Result<Vec<Self>, RpcError> {
        params
            .array("tracks", TRACKS_PER_CALL_MAX)?
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let name = Fields::of(format!("params.tracks[{index}]"), value)?;
                let track_id = match name.optional("trackId") {
                    Some(_) => Some(name.name("trackId", NAME_SIZE_MAX)?.to_owned()),
                    None => None,
                };
                Ok(Self { stream_id: name.name("streamId", NAME_SIZE_MAX)?.to_owned(), track_id })
            })
            .collect()
    }
}

/// The SDP of an `RTCSessionDescription` of the given type.
fn description(fields: &Fields<'_>, type_wanted: &str) -> Result<String, RpcError> {
    let sdp = fields.text("sdp")?;
    match fields.text("type")? {
        type_found if type_found == type_wanted => Ok(sdp.to_owned()),
        _ => Err(RpcError::params(format!("the description must be of type \"{type_wanted}\""))),
    }
}
