//! One number beside its baseline and its goal: printed as it comes, and kept as JSON in the target directory for the summary.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, target_dir};
use crate::measure::Args;

/// What one bench found out.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub bench: String,
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// What could not be measured here, and why.
    pub skipped: Vec<String>,
    #[serde(skip)]
    is_kept: bool,
}

/// One number.
#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub value: f64,
    pub unit: String,
    pub beside: Option<Beside>,
    pub goal: Option<Goal>,
    /// It is in the picture, even without a goal.
    pub drawn: bool,
}

/// What the number is compared with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Beside {
    pub name: String,
    pub value: f64,
    /// The number by this one.
    pub ratio: f64,
}

/// What the number must reach.
#[derive(Clone, Serialize, Deserialize)]
pub struct Goal {
    pub text: String,
    pub holds: bool,
    /// How much of what is allowed was used: up to 1 holds.
    pub used: f64,
}

impl Report {
    pub fn new(bench: &str, args: &Args) -> Self {
        let (rows, skipped) = (Vec::new(), Vec::new());
        Self { bench: bench.to_owned(), machine: Machine::here(), rows, skipped, is_kept: args.is_whole() }
    }

    pub fn row(&mut self, row: Row) {
        println!("{:<8} {row}", self.bench);
        self.rows.push(row);
    }

    /// Says what could not be measured, once.
    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.skipped.contains(&what) {
            return;
        }
        println!("{:<8} skipped: {what}", self.bench);
        self.skipped.push(what);
    }

    /// Keeps the results, if they are those of a whole run.
    pub fn finish(self) {
        if !self.is_kept {
            return;
        }
        let (folder, path) = (folder(), folder().join(format!("{}.json", self.bench)));
        let written = serde_json::to_string_pretty(&self)
            .map_err(std::io::Error::from)
            .and_then(|json| fs::create_dir_all(folder).and_then(|()| fs::write(&path, json)));
        if let Err(error) = written {
            println!("{:<8} could not write {}: {error}", self.bench, path.display());
        }
    }
}

impl Row {
    pub fn new(what: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { what: what.into(), value, unit: unit.to_owned(), beside: None, goal: None, drawn: false }
    }

    pub fn beside(self, name: &str, value: f64) -> Self {
        let ratio = self.value / value;
        self.beside_by(name, value, ratio)
    }

    /// With a ratio that is better founded than the quotient of both numbers.
    pub fn beside_by(self, name: &str, value: f64, ratio: f64) -> Self {
        Self { beside: Some(Beside { name: name.to_owned(), value, ratio }), ..self }
    }

    /// The ratio must not be more.
    pub fn ratio_at_most(self, limit: f64) -> Self {
        let ratio = self.ratio();
        self.goal(format!("≤ {limit} ×"), ratio / limit)
    }

    /// The ratio must not be less.
    pub fn ratio_at_least(self, limit: f64) -> Self {
        let ratio = self.ratio();
        self.goal(format!("≥ {limit} ×"), limit / ratio)
    }

    /// The number must not be more.
    pub fn at_most(self, limit: f64) -> Self {
        let (value, text) = (self.value, format!("≤ {limit} {}", self.unit));
        self.goal(text, value / limit)
    }

    /// The number must not be less.
    pub fn at_least(self, limit: f64) -> Self {
        let (value, text) = (self.value, format!("≥ {limit} {}", self.unit));
        self.goal(text, limit / value)
    }

    /// The number must not exceed its baseline by more.
    pub fn above_at_most(self, limit: f64) -> Self {
        let over = self.value - self.beside.as_ref().map_or(0.0, |beside| beside.value);
        let text = format!("{over:.0} {0} above, ≤ {limit} {0}", self.unit);
        self.goal(text, over.max(0.0) / limit)
    }

    /// It belongs in the picture, though it has no goal.
    pub fn drawn(self) -> Self {
        Self { drawn: true, ..self }
    }

    fn ratio(&self) -> f64 {
        self.beside.as_ref().map_or(f64::NAN, |beside| beside.ratio)
    }

    fn goal(self, text: String, used: f64) -> Self {
        // Nothing of nothing.
        let used = if used.is_nan() { 0.0 } else { used };
        Self { goal: Some(Goal { text, holds: used <= 1.0, used }), drawn: true, ..self }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<52} {:>9} {:<8}", self.what, number(self.value), self.unit)?;
        if let Some(Beside { name, value, ratio }) = &self.beside {
            write!(f, " {name} {} ratio {ratio:.2}", number(*value))?;
        }
        match &self.goal {
            Some(Goal { text, holds, .. }) => write!(f, "  goal {text}: {}", if *holds { "holds" } else { "MISSED" }),
            None => Ok(()),
        }
    }
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Where the reports of all benches are.
pub fn folder() -> PathBuf {
    target_dir().join("ringmain-benches")
}
