//! What a run has found, as JSON for scripts and as a table for people, both from the same [`Outcome`].

use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::crowd::Joins;
use super::histogram::Histogram;
use super::server::Usage;
use super::tally::Tally;

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    /// Whether the run found nothing wrong.
    pub(super) passed: bool,
    /// What is wrong.
    pub(super) problems: Vec<String>,
    pub(super) server_url: String,
    pub(super) load: Load,
    pub(super) joins: JoinsFound,
    /// The measured window; absent when only joins were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<Window>,
    /// The same without churn, measured just before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) without_churn: Option<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) churn: Option<JoinsFound>,
    /// The steps of a ramp, in the order in which they were taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Step>,
    /// The highest step that held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) highest: Option<u32>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Load {
    pub(super) rooms: u32,
    pub(super) publishers_per_room: u32,
    pub(super) subscribers_per_room: u32,
    pub(super) fps: u32,
    pub(super) packets_per_frame: u32,
    pub(super) payload_size: usize,
    pub(super) uneven: bool,
    pub(super) spacing_us: u64,
    pub(super) audio: bool,
    /// Of each publisher, where there are data channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages_per_second: Option<u32>,
    pub(super) message_size: usize,
    pub(super) gro: bool,
    pub(super) drop_percent: f64,
    pub(super) seed: u64,
}

/// How joining went.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct JoinsFound {
    pub(super) count: u64,
    pub(super) failed: u64,
    pub(super) per_second: f64,
    /// How media is protected.
    pub(super) srtp_profile: String,
    /// From opening the WebSocket until media may flow.
    pub(super) took: Times,
    /// From opening the WebSocket to the first media packet.
    pub(super) first_media: Times,
    /// CPU time of the server for each, where there was nothing else to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_cpu_us: Option<f64>,
}

/// A distribution, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) p50_us: f64,
    pub(super) p95_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

/// What happened in a window.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Window {
    pub(super) seconds: f64,
    pub(super) sent: Sent,
    pub(super) received: Received,
    /// From the publisher's sending to the subscriber's reading, of verified packets.
    pub(super) delay: Times,
    /// On data channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<Server>,
    /// CPU of this load generator, percent of a core.
    pub(super) load_cpu_percent: f64,
    /// Datagrams that the kernel dropped because a socket's buffer was full, anywhere in this namespace.
    pub(super) buffer_overflows: u64,
}

/// What publishers did in a window.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) keyframes: u64,
    pub(super) keyframe_requests: u64,
    pub(super) packets_asked_again: u64,
    pub(super) packets_sent_again: u64,
    pub(super) send_errors: u64,
}

/// What subscribers got in a window and, for what is lost, late or spoilt, until everything had come that would.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Received {
    /// Media datagrams, retransmissions included: what the server forwarded.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) packets_per_second: f64,
    pub(super) bits_per_second: f64,
    pub(super) streams: u64,
    pub(super) streams_expected: u64,
    pub(super) lost: u64,
    pub(super) loss_percent: f64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    pub(super) repaired: u64,
    /// Thrown away on purpose, here and at the publishers.
    pub(super) dropped: u64,
    pub(super) verified: u64,
    pub(super) spoilt: u64,
    pub(super) padding: u64,
    pub(super) packets_asked_again: u64,
    pub(super) rtcp_sent: u64,
    pub(super) rtcp_received: u64,
}

/// What was said on data channels in a window and, for what is lost or spoilt, until everything had come that would.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Messages {
    /// Subscribers to whom the server has opened its own channel.
    pub(super) channels: u64,
    pub(super) channels_expected: u64,
    /// Pairs of a publisher and somebody who hears it, another publisher too.
    pub(super) conversations: u64,
    pub(super) conversations_expected: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    /// Changed on the way, or out of order.
    pub(super) spoilt: u64,
    pub(super) delay: Times,
}

/// What the server used in a window.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Server {
    pub(super) user_s: f64,
    pub(super) system_s: f64,
    pub(super) cpu_percent: f64,
    pub(super) cpu_ns_per_packet: f64,
    pub(super) rss_bytes: u64,
    /// Growth since before the first join.
    pub(super) rss_bytes_per_subscriber: f64,
    pub(super) voluntary_switches: u64,
    pub(super) involuntary_switches: u64,
}

/// A step of a ramp.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Step {
    /// Subscribers per room, or frames per second.
    pub(super) value: u32,
    pub(super) held: bool,
    /// The load itself could not send as much.
    pub(super) starved: bool,
    pub(super) window: Window,
}

impl Times {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let micros = |value: Option<Duration>| value.map_or(0.0, |value| round(value.as_secs_f64() * 1e6, 1));
        let at = |share| micros(histogram.quantile(share));
        Self {
            count: histogram.count(),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

impl JoinsFound {
    /// `joins` took place within `over`.
    pub(super) fn of(joins: &Joins, over: Duration, server: Option<&Usage>) -> Self {
        let per_second = joins.count as f64 / over.as_secs_f64().max(1e-9);
        let cpu = |usage: &Usage| round(usage.cpu().as_secs_f64() * 1e6 / joins.count.max(1) as f64, 1);
        Self {
            count: joins.count,
            failed: joins.failed,
            per_second: round(per_second, 1),
            srtp_profile: joins.profile.to_owned(),
            took: Times::of(&joins.took),
            first_media: Times::of(&joins.first_media),
            server_cpu_us: server.map(cpu),
        }
    }
}

impl Sent {
    pub(super) fn of(tally: &Tally) -> Self {
        Self {
            packets: tally.sent,
            bytes: tally.sent_bytes,
            frames: tally.frames,
            keyframes: tally.keyframes,
            keyframe_requests: tally.keyframe_requests,
            packets_asked_again: tally.nacks,
            packets_sent_again: tally.resent,
            send_errors: tally.send_errors,
        }
    }
}

impl Received {
    /// `window` ended with the window, `whole` when everything had come; `tail` is what never came after the last packet that
    /// did.
    pub(super) fn of(window: &Tally, whole: &Tally, tail: u64, seconds: f64) -> Self {
        let lost = whole.lost() + tail;
        let expected = whole.expected + tail;
        Self {
            packets: window.datagrams,
            bytes: window.datagram_bytes,
            packets_per_second: round(window.datagrams as f64 / seconds, 1),
            bits_per_second: round(window.datagram_bytes as f64 * 8.0 / seconds, 0),
            lost,
            loss_percent: round(lost as f64 * 100.0 / expected.max(1) as f64, 4),
            duplicates: whole.duplicates,
            late: whole.late,
            repaired: whole.repaired,
            dropped: whole.dropped,
            verified: whole.verified,
            spoilt: whole.spoilt,
            padding: whole.padding,
            packets_asked_again: whole.packets_asked,
            rtcp_sent: window.rtcp_sent,
            rtcp_received: window.rtcp_received,
            ..Self::default()
        }
    }
}

impl Messages {
    /// As [`Received::of`]; those expected are left to be filled in.
    pub(super) fn of(window: &Tally, whole: &Tally, tail: u64) -> Self {
        Self {
            sent: window.messages_sent,
            received: window.messages_received,
            lost: whole.messages_lost + tail,
            spoilt: whole.messages_spoilt,
            delay: Times::of(&whole.message_delay),
            ..Self::default()
        }
    }
}

impl Server {
    /// `used` in `seconds`, while `packets` were forwarded; `before` anybody had joined, of `subscribers`.
    pub(super) fn of(used: &Usage, before: &Usage, seconds: f64, packets: u64, subscribers: usize) -> Self {
        let cpu = used.cpu().as_secs_f64();
        Self {
            user_s: round(used.user.as_secs_f64(), 2),
            system_s: round(used.system.as_secs_f64(), 2),
            cpu_percent: round(cpu * 100.0 / seconds, 1),
            cpu_ns_per_packet: if packets > 0 { round(cpu * 1e9 / packets as f64, 1) } else { 0.0 },
            rss_bytes: used.rss,
            rss_bytes_per_subscriber: round(used.rss.saturating_sub(before.rss) as f64 / subscribers.max(1) as f64, 0),
            voluntary_switches: used.voluntary_switches,
            involuntary_switches: used.involuntary_switches,
        }
    }
}

pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// The table.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::default();
        let load = &self.load;
        let clients = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let mut text = clients(load.rooms, "room");
        let _ = write!(
            text,
            " × ({} + {})",
            clients(load.publishers_per_room, "publisher"),
            clients(load.subscribers_per_room, "subscriber")
        );
        table.row("load", text);
        if load.fps > 0 && (self.window.is_some() || !self.steps.is_empty()) {
            let sizes = if load.uneven { ", uneven" } else { "" };
            let spacing = if load.spacing_us > 0 { format!(", {} µs apart", load.spacing_us) } else { String::new() };
            let audio = if load.audio { "; audio" } else { "" };
            table.row(
                "media",
                format!(
                    "{} fps × {} packets × {} B{sizes}{spacing}{audio}",
                    load.fps, load.packets_per_frame, load.payload_size
                ),
            );
        } else if load.audio {
            table.row("media", "audio".to_owned());
        }
        table.joins("joins", &self.joins);
        if let Some(window) = &self.without_churn {
            table.row("", "— without churn —".to_owned());
            table.window(window);
        }
        if let Some(churn) = &self.churn {
            table.row("", "— with churn —".to_owned());
            table.joins("churn", churn);
        }
        if let Some(window) = &self.window {
            table.window(window);
        }
        for problem in &self.problems {
            table.row("problem", problem.clone());
        }
        f.write_str(&table.text)
    }
}

impl fmt::Display for Step {
    /// One line of a ramp.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { received, delay, server, load_cpu_percent, .. } = &self.window;
        write!(
            f,
            "{:>7}  {:>10} packets/s  loss {:>8} %  p99 {:>9}  ",
            self.value,
            thousands(received.packets_per_second as u64),
            received.loss_percent,
            time(delay.p99_us)
        )?;
        if let Some(server) = server {
            write!(f, "server {:>5} %, {:>6} ns per packet  ", server.cpu_percent, server.cpu_ns_per_packet)?;
        }
        let verdict = match self {
            Self { held: true, .. } => "held",
            Self { starved: true, .. } => "the load itself could not send as much",
            _ => "failed",
        };
        write!(f, "load {load_cpu_percent:>5} %  {verdict}")
    }
}

#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn row(&mut self, name: &str, value: String) {
        let _ = writeln!(self.text, "{name:<12}{value}");
    }

    fn joins(&mut self, name: &str, joins: &JoinsFound) {
        let failed = if joins.failed > 0 { format!(", {} failed", joins.failed) } else { String::new() };
        let mut text = format!("{}{failed}, {} per second", joins.count, joins.per_second);
        if !joins.srtp_profile.is_empty() {
            let _ = write!(text, ", {}", joins.srtp_profile);
        }
        if let Some(cpu) = joins.server_cpu_us {
            let _ = write!(text, ", server CPU {} each", time(cpu));
        }
        self.row(name, text);
        self.times("  took", &joins.took);
        self.times("  to media", &joins.first_media);
    }

    fn times(&mut self, name: &str, times: &Times) {
        if times.count > 0 {
            let Times { p50_us, p95_us, p99_us, p999_us, max_us, .. } = *times;
            let [p50, p95, p99, p999, max] = [p50_us, p95_us, p99_us, p999_us, max_us].map(time);
            self.row(name, format!("p50 {p50}  p95 {p95}  p99 {p99}  p99.9 {p999}  max {max}"));
        }
    }

    fn messages(&mut self, messages: &Messages) {
        let Messages { channels, channels_expected, conversations, conversations_expected, .. } = messages;
        self.row(
            "channels",
            format!("{channels} of {channels_expected} of the server's; {conversations} of {conversations_expected} pairs that talk"),
        );
        let Messages { sent, received, lost, spoilt, .. } = messages;
        let (sent, received) = (thousands(*sent), thousands(*received));
        self.row("messages", format!("{sent} sent, {received} arrived; {lost} lost, {spoilt} spoilt"));
        self.times("  delay", &messages.delay);
    }

    fn window(&mut self, window: &Window) {
        let Window { seconds, sent, received, delay, messages, server, load_cpu_percent, buffer_overflows } = window;
        self.row("window", format!("{seconds} s, after joins and warm-up"));
        self.row(
            "sent",
            format!(
                "{} packets, {} frames, {} of them key; {} keyframe requests, {} packets sent again",
                thousands(sent.packets),
                thousands(sent.frames),
                sent.keyframes,
                sent.keyframe_requests,
                sent.packets_sent_again
            ),
        );
        self.row(
            "received",
            format!(
                "{} packets, {}/s, {:.1} Mbit/s, {} of {} streams",
                thousands(received.packets),
                thousands(received.packets_per_second as u64),
                received.bits_per_second / 1e6,
                received.streams,
                received.streams_expected
            ),
        );
        let dropped = match received.dropped {
            0 => String::new(),
            dropped => format!(", {} thrown away on purpose", thousands(dropped)),
        };
        self.row(
            "lost",
            format!(
                "{} ({} %); {} late, {} duplicate, {} repaired{dropped}",
                thousands(received.lost),
                received.loss_percent,
                received.late,
                received.duplicates,
                received.repaired
            ),
        );
        self.row("checked", format!("{} opened and whole, {} spoilt", thousands(received.verified), received.spoilt));
        self.times("delay", delay);
        if let Some(messages) = messages {
            self.messages(messages);
        }
        if let Some(server) = server {
            let each = match server.cpu_ns_per_packet {
                0.0 => String::new(),
                nanos => format!(", {nanos} ns per forwarded packet"),
            };
            let Server { cpu_percent, user_s, system_s, .. } = server;
            self.row("server", format!("CPU {cpu_percent} % ({user_s} s user, {system_s} s system){each}"));
            self.row(
                "",
                format!(
                    "{:.1} MiB resident, {:.1} KiB per subscriber; context switches {} voluntary, {} not",
                    server.rss_bytes as f64 / 1_048_576.0,
                    server.rss_bytes_per_subscriber / 1024.0,
                    thousands(server.voluntary_switches),
                    thousands(server.involuntary_switches)
                ),
            );
        }
        let overflows = if *buffer_overflows > 0 {
            format!("; {} datagrams dropped by full socket buffers of this host", thousands(*buffer_overflows))
        } else {
            String::new()
        };
        self.row("this load", format!("CPU {load_cpu_percent} %{overflows}"));
    }
}

fn time(micros: f64) -> String {
    match micros {
        micros if micros < 1000.0 => format!("{micros:.0} µs"),
        micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([3.4, 999.0, 1234.0, 2.5e6].map(time), ["3 µs", "999 µs", "1.23 ms", "2.50 s"]);
    }

    #[test]
    fn what_never_came_counts_as_lost_at_the_end_too() {
        let window = Tally { datagrams: 900, ..Tally::default() };
        let whole = Tally { expected: 990, received: 985, ..Tally::default() };
        let received = Received::of(&window, &whole, 10, 3.0);
        assert_eq!((received.lost, received.loss_percent, received.packets_per_second), (15, 1.5, 300.0));
    }

    #[test]
    fn cpu_is_told_per_forwarded_packet_and_memory_per_subscriber() {
        let used = Usage {
            user: Duration::from_millis(250),
            system: Duration::from_millis(750),
            rss: 3_000_000,
            ..Usage::default()
        };
        let before = Usage { rss: 1_000_000, ..Usage::default() };
        let server = Server::of(&used, &before, 10.0, 1_000_000, 100);
        assert_eq!(
            (server.cpu_percent, server.cpu_ns_per_packet, server.rss_bytes_per_subscriber),
            (10.0, 1000.0, 20_000.0)
        );
    }

    #[test]
    fn the_table_tells_what_the_json_tells() {
        let window = Window { seconds: 10.0, server: Some(Server::default()), ..Window::default() };
        let outcome = Outcome { window: Some(window), problems: vec!["something".into()], ..Outcome::default() };
        let table = outcome.to_string();
        for name in ["load", "joins", "window", "sent", "received", "lost", "checked", "server", "this load", "problem"]
        {
            assert!(table.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{table}");
        }
    }
}
