//! A TOML file as a flat list: path, value, line.

use toml::de::{DeTable, DeValue};

use super::value::Value;

/// One line of the file that says something.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    /// `section.name`.
    pub(super) path: String,
    /// What it says; `None` for a section with nothing in it.
    pub(super) value: Option<Value>,
    /// Where, from 1.
    pub(super) line: usize,
}

/// Every entry of `text` in the order of its lines, or what is wrong with it and where.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        (line, error.message().replace('\n', "; "))
    })?;
    let mut entries = Vec::new();
    flatten(text, "", table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn flatten(text: &str, prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        let line = line_of(text, name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) if inner.is_empty() => entries.push(Entry { path, value: None, line }),
            DeValue::Table(inner) => flatten(text, &path, inner, entries),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for item in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    flatten(text, &path, item, entries);
                }
            }
            other => entries.push(Entry { path, value: Some(scalar(other)), line }),
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Array(items) => Value::List(items.iter().map(|item| scalar(item.get_ref())).collect()),
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Datetime(moment) => Value::Other(moment.to_string()),
        DeValue::Table(_) => Value::Other("a table".into()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}
