//! Members of an object, taken out by name and type; what is wrong with one names its path.

use serde_json::{Map, Value};

use super::error::RpcError;

/// An object and where in the message it was.
pub(super) struct Fields<'m> {
    path: String,
    members: &'m Map<String, Value>,
}

impl<'m> Fields<'m> {
    /// The members of `value`, which is at `path`.
    pub(super) fn of(path: impl Into<String>, value: &'m Value) -> Result<Self, RpcError> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self { path, members }),
            _ => Err(RpcError::params(format!("{path} must be an object"))),
        }
    }

    /// The member `name`; null is as good as absent.
    pub(super) fn optional(&self, name: &str) -> Option<&'m Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// The member `name`.
    pub(super) fn required(&self, name: &str) -> Result<&'m Value, RpcError> {
        self.optional(name).ok_or_else(|| RpcError::params(format!("{}.{name} is missing", self.path)))
    }

    /// The member `name`, an object.
    pub(super) fn object(&self, name: &str) -> Result<Fields<'m>, RpcError> {
        Fields::of(format!("{}.{name}", self.path), self.required(name)?)
    }

    /// The member `name`, an array of at most `count_max`.
    pub(super) fn array(&self, name: &str, count_max: usize) -> Result<&'m [Value], RpcError> {
        match self.required(name)? {
            Value::Array(elements) if elements.len() <= count_max => Ok(elements),
            Value::Array(_) => {
                Err(RpcError::params(format!("{}.{name} has more than {count_max} elements", self.path)))
            }
            _ => Err(RpcError::params(format!("{}.{name} must be an array", self.path))),
        }
    }

    /// The member `name`, any string.
    pub(super) fn text(&self, name: &str) -> Result<&'m str, RpcError> {
        self.required(name)?.as_str().ok_or_else(|| RpcError::params(format!("{}.{name} must be a string", self.path)))
    }

    /// The member `name`, a string of 1 to `size_max` bytes without control characters.
    pub(super) fn name(&self, name: &str, size_max: usize) -> Result<&'m str, RpcError> {
        let text = self.text(name)?;
        if text.is_empty() || text.len() > size_max {
            return Err(RpcError::params(format!("{}.{name} must have 1 to {size_max} bytes", self.path)));
        }
        if text.chars().any(char::is_control) {
            return Err(RpcError::params(format!("{}.{name} must not hold control characters", self.path)));
        }
        Ok(text)
    }

    /// Every member with its path.
    pub(super) fn each(&self) -> impl Iterator<Item = (String, &'m str, &'m Value)> + '_ {
        self.members.iter().map(|(key, value)| (format!("{}.{key}", self.path), key.as_str(), value))
    }
}
