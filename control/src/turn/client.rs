//! `ringmain admin`: one question over the operator's socket, its answer on the standard output.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::config::Config;

/// What `ringmain admin` was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminOptions {
    /// The order and what belongs to it.
    pub words: Vec<String>,
}

/// Asks the server whose `admin_socket` the configuration names.
pub fn ask(config: &Config, options: &AdminOptions) -> anyhow::Result<()> {
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    let (method, params) = match words[..] {
        ["allocations"] => ("turn.allocations", Value::Null),
        ["kill", id] => ("turn.kill", json!({"id": id})),
        ["drain"] => ("turn.drain", json!({"on": true})),
        ["undrain"] => ("turn.drain", json!({"on": false})),
        _ => anyhow::bail!("orders are: allocations, kill ID, drain, undrain"),
    };
    let path = config.admin_socket.as_ref().context("which server? Say --admin-socket FILE, as the server was told")?;
    let mut stream = UnixStream::connect(path).with_context(|| format!("no server answers at {}", path.display()))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the server did not answer")?;
    let answer: Value = serde_json::from_str(&line).context("the server's answer makes no sense")?;
    if let Some(error) = answer.get("error") {
        anyhow::bail!("{}", error.get("message").and_then(Value::as_str).unwrap_or("refused"));
    }
    let result = answer.get("result").cloned().unwrap_or_default();
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&result)?)?;
    Ok(())
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
