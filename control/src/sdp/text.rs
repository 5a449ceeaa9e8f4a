//! From untrusted text to lines that keep the grammar of RFC 8866, within limits; one pass each, linear in the text.
//! The `sdp` crate checks order and syntax. m-lines are read here, since the crate refuses a whole description for one
//! medium or protocol that it does not know, and RFC 3264 §6 lets us refuse just that m-section.

use std::io::Cursor;

use sdp::SessionDescription;
use sdp::description::common::Attribute;

use super::error::SdpError;

/// How large a description may be.
pub(super) struct Limits {
    /// Bytes in all.
    pub size_max: usize,
    /// Lines in all.
    pub lines_max: usize,
    /// Bytes of a line.
    pub line_size_max: usize,
    /// m-sections.
    pub sections_max: usize,
}

/// For what a publisher offers. Chromium's largest m-section, all codecs offered, has 5 KiB and 150 lines.
pub(super) const OFFER: Limits = Limits { size_max: 64 * 1024, lines_max: 4096, line_size_max: 1024, sections_max: 64 };

/// For what a subscriber answers: as many m-sections as we offered it, so `a=group` is longer too.
pub(super) const ANSWER: Limits =
    Limits { size_max: 2 * 1024 * 1024, lines_max: 64 * 1024, line_size_max: 8 * 1024, sections_max: SECTIONS_MAX };

/// m-sections that one connection may have, either way.
pub(super) const SECTIONS_MAX: usize = 512;

/// Payload types that one m-line may list; there are no more (RFC 3550 §5.1).
const FORMATS_MAX: usize = 128;

/// A description that keeps the grammar.
pub(super) struct Text {
    /// Attributes above the first m-line.
    pub session: Vec<Attribute>,
    /// The number of the session in `o=` (RFC 8866 §5.2).
    pub session_id: u64,
    /// The m-sections in order.
    pub sections: Vec<RawSection>,
}

/// An m-section whose attributes have not been read yet.
pub(super) struct RawSection {
    pub m_line: MLine,
    pub attributes: Vec<Attribute>,
}

/// `m=<media> <port> <proto> <fmt> …`: tokens all, fit to be sent back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MLine {
    /// Where it stands, counted from 1.
    pub line: usize,
    pub media: String,
    pub port: u16,
    pub proto: String,
    pub formats: Vec<String>,
}

/// Reads `text`, or says which line breaks the grammar or a limit.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<Text, SdpError> {
    let (plain, m_lines) = scan(text, limits)?;
    let mut reader = Cursor::new(plain.as_bytes());
    let description = SessionDescription::unmarshal(&mut reader).map_err(|error| {
        let read = (reader.position() as usize).saturating_sub(1).min(plain.len());
        let line = 1 + plain.as_bytes().iter().take(read).filter(|&&byte| byte == b'\n').count();
        SdpError::at_line(line, format!("not SDP by RFC 8866 ({})", printable(&error.to_string())))
    })?;
    let sections = m_lines.into_iter().zip(description.media_descriptions);
    Ok(Text {
        session_id: description.origin.session_id,
        session: description.attributes,
        sections: sections.map(|(m_line, media)| RawSection { m_line, attributes: media.attributes }).collect(),
    })
}

/// Checks limits and characters line by line. Gives the m-lines, and the text with each of them replaced by one that
/// the grammar knows.
fn scan(text: &str, limits: &Limits) -> Result<(String, Vec<MLine>), SdpError> {
    if text.len() > limits.size_max {
        return Err(SdpError::new(format!("longer than {} bytes: offer fewer m-sections or codecs", limits.size_max)));
    }
    let mut plain = String::with_capacity(text.len() + 64);
    let mut m_lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if number > limits.lines_max {
            return Err(SdpError::new(format!("more than {} lines", limits.lines_max)));
        }
        if line.len() > limits.line_size_max {
            return Err(SdpError::at_line(number, format!("longer than {} bytes", limits.line_size_max)));
        }
        if line.chars().any(char::is_control) {
            return Err(SdpError::at_line(number, "has a control character"));
        }
        if !line.is_empty() && line.as_bytes().get(1) != Some(&b'=') {
            return Err(SdpError::at_line(number, "not SDP by RFC 8866 (is not `<type>=<value>`)"));
        }
        match line.strip_prefix("m=") {
            Some(value) => {
                if m_lines.len() == limits.sections_max {
                    return Err(SdpError::at_line(number, format!("more than {} m-sections", limits.sections_max)));
                }
                m_lines.push(MLine::parse(number, value)?);
                plain.push_str("m=application 0 UDP 0");
            }
            None => plain.push_str(line),
        }
        plain.push_str("\r\n");
    }
    Ok((plain, m_lines))
}

impl MLine {
    fn parse(line: usize, value: &str) -> Result<Self, SdpError> {
        let wrong = || SdpError::at_line(line, "is not `m=<media> <port> <proto> <fmt> …`");
        let mut fields = value.split_ascii_whitespace();
        let (media, port, proto) = match (fields.next(), fields.next(), fields.next()) {
            (Some(media), Some(port), Some(proto)) => (media, port, proto),
            _ => return Err(wrong()),
        };
        let formats: Vec<String> = fields.map(str::to_owned).collect();
        if !is_token(media) || !proto.split('/').all(is_token) || !formats.iter().all(|format| is_token(format)) {
            return Err(wrong());
        }
        if formats.is_empty() || formats.len() > FORMATS_MAX {
            return Err(SdpError::at_line(line, format!("must list 1 to {FORMATS_MAX} formats")));
        }
        // RFC 8866 §5.14: a count of ports may follow; WebRTC never uses one.
        let port = port.split('/').next().and_then(|port| port.parse().ok()).ok_or_else(wrong)?;
        Ok(Self { line, media: media.to_owned(), port, proto: proto.to_owned(), formats })
    }
}

/// RFC 8866 §9 `token`: what may stand between separators without harm.
pub(super) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Visible ASCII, at most `size_max` bytes: what browsers and others use as MediaStream and track ids and as CNAMEs, some
/// of them beyond the tokens that RFC 8830 allows.
pub(super) fn is_visible(text: &str, size_max: usize) -> bool {
    !text.is_empty() && text.len() <= size_max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A peer's words in one of our error messages: bounded, and on one line.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(120).collect()
}
