//! What is wrong with a peer's SDP, where, and what to change. Goes back to the peer as it is.

use std::fmt;

/// Why an offer or answer is refused as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SdpError {
    line: Option<usize>,
    section: Option<usize>,
    what: String,
}

impl SdpError {
    /// An error about the description as a whole.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { line: None, section: None, what: what.into() }
    }

    /// An error in a line, counted from 1.
    pub(super) fn at_line(line: usize, what: impl Into<String>) -> Self {
        Self { line: Some(line), section: None, what: what.into() }
    }

    /// An error in an m-section, counted from 0 as `sdpMLineIndex` is, that begins at `line`.
    pub(super) fn in_section(index: usize, line: usize, what: impl Into<String>) -> Self {
        Self { line: Some(line), section: Some(index), what: what.into() }
    }

    /// The line that is wrong, or where the m-section that is wrong begins; counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The m-section that is wrong, counted from 0.
    pub fn section(&self) -> Option<usize> {
        self.section
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.section, self.line) {
            (Some(section), Some(line)) => write!(f, "SDP m-section {section} (line {line}): {}", self.what),
            (None, Some(line)) => write!(f, "SDP line {line}: {}", self.what),
            _ => write!(f, "SDP: {}", self.what),
        }
    }
}

impl std::error::Error for SdpError {}
