//! One value on its way from a source into the [`Config`](super::Config): parsers that say what they would have taken.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::Listen;

/// A value as its source gave it.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// Untyped text of a flag or an environment variable; a list is separated by commas.
    Raw(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer; what does not fit is `Other`.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    List(Vec<Value>),
    /// Anything else, as written or by the name of its type.
    Other(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Raw(text) => write!(f, "`{}`", shortened(text)),
            Value::Text(text) => write!(f, "\"{}\"", shortened(text)),
            Value::Integer(number) => number.fmt(f),
            Value::Boolean(yes) => yes.fmt(f),
            Value::List(_) => f.write_str("a list"),
            Value::Other(what) => f.write_str(what),
        }
    }
}

impl Value {
    /// A string.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Value::Raw(text) | Value::Text(text) => Ok(text),
            other => Err(format!("{other} is not text; put it in quotes")),
        }
    }

    /// A truth value.
    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self {
            Value::Boolean(yes) => Ok(*yes),
            Value::Raw(text) if text == "true" => Ok(true),
            Value::Raw(text) if text == "false" => Ok(false),
            other => Err(format!("{other} is neither true nor false")),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Result<T, String> {
        let number = match self {
            Value::Integer(number) => Some(*number),
            Value::Raw(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{self} is not a whole number from {min} to {max}"))
    }

    /// A UDP or TCP port.
    pub(super) fn port(&self) -> Result<u16, String> {
        self.number(1, 65_535).map_err(|_| format!("{self} is not a port (1 to 65535)"))
    }

    /// A duration from `min` to `max`, as `500ms`, `15s` or `2m`.
    pub(super) fn duration(&self, min: Duration, max: Duration) -> Result<Duration, String> {
        let wrong = || format!("{self} is not a duration; write it as \"500ms\", \"15s\" or \"2m\"");
        let (Value::Raw(text) | Value::Text(text)) = self else { return Err(wrong()) };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(wrong()),
        };
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale_ms)).ok_or_else(wrong)?;
        let duration = Duration::from_millis(millis);
        if (min..=max).contains(&duration) {
            Ok(duration)
        } else {
            Err(format!("{self} is out of range ({} to {})", show_duration(min), show_duration(max)))
        }
    }

    /// `:7000`, `7000`, `192.0.2.1:7000` or `[2001:db8::1]:7000`.
    pub(super) fn listen(&self) -> Result<Listen, String> {
        let wrong =
            || format!("{self} is not an endpoint; write it as \":7000\", \"192.0.2.1:7000\" or \"[::1]:7000\"");
        let (Value::Raw(text) | Value::Text(text)) = self else { return Err(wrong()) };
        if let Ok(address) = SocketAddr::from_str(text) {
            if address.port() == 0 {
                return Err(format!("{self} has port 0; a client could not know which port it became"));
            }
            return Ok(Listen { address: Some(address.ip()), port: address.port() });
        }
        if IpAddr::from_str(text).is_ok() {
            return Err(format!("{self} has no port"));
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Listen { address: None, port: Value::Raw(port.into()).port()? })
    }

    /// An IP address.
    pub(super) fn address(&self) -> Result<IpAddr, String> {
        let text = self.text()?;
        text.parse().map_err(|_| match SocketAddr::from_str(text) {
            Ok(_) => format!("{self} has a port; give the address alone"),
            Err(_) => format!("{self} is not an IP address, and names are not looked up"),
        })
    }

    /// A list of what `item` parses; a lone value is a list of one.
    pub(super) fn list<T>(&self, item: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
        match self {
            Value::List(values) => values.iter().map(item).collect(),
            Value::Raw(text) if text.trim().is_empty() => Ok(Vec::new()),
            Value::Raw(text) => text.split(',').map(|part| item(&Value::Raw(part.trim().into()))).collect(),
            single => Ok(vec![item(single)?]),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let (Value::Raw(text) | Value::Text(text)) = self else { return Err(format!("{self} is none of {}", known())) };
        words
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| format!("{self} is none of {}", known()))
    }
}

/// A duration in the unit that loses nothing.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if millis.is_multiple_of(60_000) && millis > 0 => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Enough of a value to recognise it by.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.into() } else { text.chars().take(80).chain("…".chars()).collect() }
}
