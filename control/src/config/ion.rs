//! The keys of ion-sfu's `config.toml`: taken with their meaning where Ringmain has it; where not, told what to do instead,
//! or, where nothing is lost, that nothing comes of it.

use super::value::Value;

/// What becomes of one of ion-sfu's keys.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    /// It says the same as these settings of ours.
    Means(Vec<(&'static str, Value)>),
    /// As `Means`, and the media ports must stay within `last`.
    Ports {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// It asks for what Ringmain does anyway.
    Always,
    /// It changes nothing here, and this is why.
    NoEffect(&'static str),
    /// Running without what it asks for would surprise the operator.
    Refused(String),
}

/// Judges a key of ion-sfu; `None` when it is not one.
pub(super) fn verdict(path: &str, value: &Value) -> Option<Verdict> {
    use Verdict::{Always, Means, NoEffect, Refused};
    Some(match path {
        "sfu.ballast" => NoEffect("there is no garbage collector to calm"),
        "sfu.withstats" => NoEffect("statistics are always kept, see /metrics"),
        "router.withstats" => NoEffect("statistics are always kept, see /metrics"),
        "router.maxbandwidth" => NoEffect(
            "a stream's rate follows the network; to drop what a publisher sends above a rate, set `media.publisher_rate_bps_max`",
        ),
        "router.maxpackettrack" => NoEffect("the packets kept for retransmission are a fixed number per layer"),
        "router.audiolevelthreshold" => Means(vec![("audio.threshold", value.clone())]),
        "router.audiolevelfilter" => Means(vec![("audio.filter", value.clone())]),
        "router.audiolevelinterval" => match value {
            // ion-sfu reads 0 as its default.
            Value::Integer(0) => Means(vec![("audio.interval", Value::Text("1000ms".into()))]),
            Value::Integer(millis) => Means(vec![("audio.interval", Value::Text(format!("{millis}ms")))]),
            other => Refused(format!("{other} is not a number of milliseconds; or set `audio.interval`")),
        },
        "router.simulcast.bestqualityfirst" => {
            on_or(value, NoEffect("a subscriber always begins with the best layer that is alive and fits"))
        }
        "router.simulcast.enabletemporallayer" => {
            on_or(value, NoEffect("temporal layers are used wherever the codec carries them"))
        }
        "webrtc.singleport" => match value.port() {
            Ok(0) | Err(_) => Refused(format!("{value} is not a port (1 to 65535); or set `media.base_port`")),
            Ok(port) => Verdict::Ports { first: port, last: port },
        },
        "webrtc.portrange" => match port_range(value) {
            Some((first, last)) => Verdict::Ports { first, last },
            None => Refused(format!("{value} is not [first port, last port]; or set `media.base_port`")),
        },
        "webrtc.sdpsemantics" => match value {
            Value::Text(text) if text == "unified-plan" => Always,
            Value::Text(text) if text == "unified-plan-with-fallback" => {
                NoEffect("unified-plan is spoken, which every current client speaks too")
            }
            other => Refused(format!("{other}: only \"unified-plan\" is spoken; remove the key")),
        },
        "webrtc.mdns" => {
            NoEffect("a server has no address to hide, and checks from clients need no name to be resolved")
        }
        "webrtc.iceserver.urls" => Refused(
            "the server asks no STUN or TURN server for its own address; set `announce` to the public one".into(),
        ),
        "webrtc.iceserver.username" | "webrtc.iceserver.credential" => {
            NoEffect("the server uses no STUN or TURN server of others")
        }
        "webrtc.candidates.nat1to1" => match value {
            Value::List(items) if items.iter().any(|item| matches!(item, Value::Text(text) if text.contains('/'))) => {
                Refused(
                    "pairs of external/local address are not told apart; set `announce` to the external ones".into(),
                )
            }
            _ => Means(vec![("announce", value.clone())]),
        },
        "webrtc.candidates.icelite" => {
            on_or(value, NoEffect("the server is always ICE-lite: it waits to be found at its announced addresses"))
        }
        "webrtc.timeouts.disconnected" | "webrtc.timeouts.failed" | "webrtc.timeouts.keepalive" => {
            NoEffect("consent is judged as RFC 7675 says: disconnected after 7 s, failed after 30 s, checked every 5 s")
        }
        // `turn.enabled` and `turn.realm` are called the same here.
        "turn.address" | "turn.cert" | "turn.key" | "turn.portrange" | "turn.auth.credentials" | "turn.auth.secret" => {
            NoEffect("TURN is set otherwise here: see turn.listen, turn.tls_cert, turn.users and turn.shared_secret")
        }
        "log.v" => match value {
            Value::Integer(0) => Means(vec![("log.filter", Value::Text("info".into()))]),
            Value::Integer(1) => Means(vec![("log.filter", Value::Text("debug".into()))]),
            Value::Integer(2..) => Means(vec![("log.filter", Value::Text("trace".into()))]),
            other => Refused(format!("{other} is not a verbosity (0, 1 or 2); or set `log.filter`")),
        },
        _ => return None,
    })
}

/// Sections of ion-sfu's file, which may stand there empty.
pub(super) const SECTIONS: [&str; 9] = [
    "sfu",
    "router",
    "router.simulcast",
    "webrtc",
    "webrtc.iceserver",
    "webrtc.candidates",
    "webrtc.timeouts",
    "turn",
    "turn.auth",
];

fn on_or(value: &Value, otherwise: Verdict) -> Verdict {
    match value {
        Value::Boolean(true) => Verdict::Always,
        Value::Boolean(false) => otherwise,
        other => Verdict::Refused(format!("{other} is neither true nor false")),
    }
}

fn port_range(value: &Value) -> Option<(u16, u16)> {
    let Value::List(ports) = value else { return None };
    let [first, last] = ports.as_slice() else { return None };
    let (first, last) = (first.port().ok()?, last.port().ok()?);
    (first <= last).then_some((first, last))
}
