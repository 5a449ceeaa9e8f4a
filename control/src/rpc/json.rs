//! JSON (RFC 8259) from strangers: bounded in size, depth and number of values, and no key twice in an object.
//! The grammar is `serde_json`'s, which refuses numbers beyond a double and unpaired surrogates.

use std::cell::{Cell, RefCell};
use std::fmt;

use ringmain_shared::limits::SIGNAL_MESSAGE_SIZE_MAX;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{ErrorCode, RpcError};

/// How deep arrays and objects may be nested.
pub const DEPTH_MAX: usize = 16;
/// How many values one message may hold, members and elements all counted.
pub const NODES_MAX: usize = 1000;

/// Reads one message.
pub(crate) fn parse(text: &str) -> Result<Value, RpcError> {
    if text.len() > SIGNAL_MESSAGE_SIZE_MAX {
        return Err(RpcError::request(format!("a message has at most {SIGNAL_MESSAGE_SIZE_MAX} bytes")));
    }
    let budget = Budget { nodes: Cell::new(NODES_MAX), refusal: RefCell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Node { budget: &budget, depth: DEPTH_MAX }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|syntax| match budget.refusal.take() {
        Some(refusal) => RpcError::request(refusal),
        None => RpcError::new(ErrorCode::Parse, format!("not JSON: {syntax}")),
    })
}

/// What is left to spend on one message, and why it was refused when it was not the grammar's fault.
struct Budget {
    nodes: Cell<usize>,
    refusal: RefCell<Option<String>>,
}

impl Budget {
    fn refuse<E: de::Error>(&self, why: String) -> E {
        *self.refusal.borrow_mut() = Some(why);
        E::custom("refused")
    }
}

/// One value, at most `depth` levels of arrays and objects deep.
#[derive(Clone, Copy)]
struct Node<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl Node<'_> {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(self.budget.refuse(format!("nested deeper than {DEPTH_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.budget.nodes.get().checked_sub(1) {
            Some(left) => self.budget.nodes.set(left),
            None => return Err(self.budget.refuse(format!("more than {NODES_MAX} values in one message"))),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(key, value).is_some() {
                return Err(self.budget.refuse("an object has the same key twice".to_owned()));
            }
        }
        Ok(Value::Object(object))
    }
}
