//! The operator's socket: a Unix socket for its owner only, JSON-RPC 2.0, one object a line.
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `turn.allocations` | none | `{"allocations":[…]}` of every worker |
//! | `turn.kill` | `{"id":"…"}` as listed | `null`, also when there is no such allocation any more |
//! | `turn.drain` | `{"on":true}`: refuse new allocations and let the others end; `false`: accept again | `null` |

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ringmain_shared::id::TurnAllocationId;
use ringmain_shared::turn::{RelayProtocol, TurnAllocation, TurnSpec, TurnTransport};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::app::connection::Door;
use crate::rpc::{RequestId, parse_json};

/// What an operator may ask.
#[derive(Clone, PartialEq, Debug)]
pub enum AdminQuestion {
    /// Every allocation.
    Allocations,
    /// End one.
    Kill(TurnAllocationId),
    /// Accept no new ones, or accept them again.
    Drain(bool),
    /// Go on under these rules. No request has this form: it is what SIGHUP asks.
    Configure(Box<TurnSpec>),
}

/// What comes of it.
#[derive(Clone, PartialEq, Debug)]
pub enum AdminAnswer {
    /// Every allocation.
    Allocations(Vec<TurnAllocation>),
    /// The data plane has been told.
    Done,
}

/// Listens at `path` until `stop`. The socket appears there with its rights set, and is taken away at the end.
pub fn listen(path: &Path, door: Door, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let context = || format!("admin_socket: cannot listen at {}", path.display());
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("admin_socket: another ringmain listens at {}", path.display());
    }
    let listener = bind_private(path).with_context(context)?;
    let path: PathBuf = path.into();
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match (accepted, places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    let door = door.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, door).await {
                            tracing::debug!("an operator's connection ended: {error}");
                        }
                        drop(place);
                    });
                }
                (Ok(_), Err(_)) => {}
                // Out of descriptors: do not turn in circles.
                (Err(_), _) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

/// Bound under another name and renamed once its rights are set, so that there is no moment at which others could connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

async fn serve(stream: UnixStream, door: Door) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        let size = (&mut reader).take(LINE_SIZE_MAX).read_line(&mut line).await?;
        if size == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let mut answer = answer(&line, &door).await;
        answer.push('\n');
        writer.write_all(answer.as_bytes()).await?;
    }
}

async fn answer(line: &str, door: &Door) -> String {
    let message = parse_json(line).unwrap_or_default();
    let id = match message.get("id") {
        Some(Value::String(text)) => Some(RequestId::Text(text.clone())),
        Some(Value::Number(number)) => number.as_u64().map(RequestId::Number),
        _ => None,
    };
    let id = id.map_or(Value::Null, |id| id.to_value());
    let failure = |code: i32, text: &str| {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}}).to_string()
    };
    let question = match question(&message) {
        Ok(question) => question,
        Err((code, text)) => return failure(code, text),
    };
    match tokio::time::timeout(ANSWER_WITHIN, door.ask(question)).await {
        Ok(Some(answer)) => json!({"jsonrpc": "2.0", "id": id, "result": to_value(&answer)}).to_string(),
        Ok(None) => failure(-32000, "the server is ending"),
        Err(_) => failure(-32000, "a worker did not answer in time"),
    }
}

fn question(message: &Value) -> Result<AdminQuestion, (i32, &'static str)> {
    let params = message.get("params");
    let param = |name: &str| params.and_then(|params| params.get(name));
    match message.get("method").and_then(Value::as_str) {
        Some("turn.allocations") => Ok(AdminQuestion::Allocations),
        Some("turn.kill") => {
            let id = param("id").and_then(Value::as_str).and_then(|id| u64::from_str_radix(id, 16).ok());
            let id = id.ok_or((-32602, "params.id must be an allocation's id, as turn.allocations lists it"))?;
            Ok(AdminQuestion::Kill(TurnAllocationId(id)))
        }
        Some("turn.drain") => {
            let on = param("on").and_then(Value::as_bool).ok_or((-32602, "params.on must be true or false"))?;
            Ok(AdminQuestion::Drain(on))
        }
        Some(_) => Err((-32601, "no such method; there are turn.allocations, turn.kill, turn.drain")),
        None => Err((-32600, "a request is one JSON object a line, with a method")),
    }
}

fn to_value(answer: &AdminAnswer) -> Value {
    match answer {
        AdminAnswer::Done => Value::Null,
        AdminAnswer::Allocations(allocations) => {
            json!({"allocations": allocations.iter().map(row).collect::<Vec<_>>()})
        }
    }
}

fn row(allocation: &TurnAllocation) -> Value {
    let traffic = allocation.traffic;
    json!({
        "id": allocation.id.to_string(),
        "user": allocation.user,
        "client": allocation.client,
        "transport": match allocation.transport {
            TurnTransport::Udp => "udp",
            TurnTransport::Tcp => "tcp",
            TurnTransport::Tls => "tls",
            TurnTransport::Dtls => "dtls",
        },
        "protocol": match allocation.protocol {
            RelayProtocol::Udp => "udp",
            RelayProtocol::Tcp => "tcp",
        },
        "relayed": allocation.relayed,
        "lifetime_s": allocation.lifetime_s,
        "permissions": allocation.permissions,
        "channels": allocation.channels,
        "sockets": allocation.sockets,
        "connections": allocation.connections,
        "to_peers": traffic.to_peers,
        "to_peers_bytes": traffic.to_peers_bytes,
        "to_clients": traffic.to_clients,
        "to_clients_bytes": traffic.to_clients_bytes,
        "shortcut": traffic.shortcut,
    })
}

/// Operators at a time.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request.
const LINE_SIZE_MAX: u64 = 16 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_known_or_refused_by_name() {
        let ask = |text: &str| question(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(ask(r#"{"method":"turn.allocations"}"#), Ok(AdminQuestion::Allocations));
        let kill = ask(r#"{"method":"turn.kill","params":{"id":"1000000000005"}}"#);
        assert_eq!(kill, Ok(AdminQuestion::Kill(TurnAllocationId(0x1_0000_0000_0005))));
        assert_eq!(ask(r#"{"method":"turn.drain","params":{"on":true}}"#), Ok(AdminQuestion::Drain(true)));
        for (text, code) in [
            (r#"{"method":"turn.kill","params":{"id":5}}"#, -32602),
            (r#"{"method":"turn.drain"}"#, -32602),
            (r#"{"method":"exec"}"#, -32601),
            (r#"{}"#, -32600),
        ] {
            assert_eq!(ask(text).map_err(|(code, _)| code), Err(code), "{text}");
        }
    }
}
