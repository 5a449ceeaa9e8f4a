//! `/metrics` in the Prometheus text format: ion-sfu's names with ion-sfu's meanings, then Ringmain's own per worker.

use std::fmt::Write;

use ringmain_shared::drop_reason::DropReason;
use ringmain_shared::event::{HandshakeStats, WorkerStats};

use crate::app::actor::Report;

/// The whole page. `refused` is what was refused at the door, by limit.
pub fn render(report: &Report, refused: &[(&str, u64)]) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    let stats = || report.workers.iter().map(|(stats, _)| stats);
    let sum = |field: fn(&WorkerStats) -> u64| stats().map(field).fold(0, u64::saturating_add);

    let expected = sum(|stats| stats.rtp_expected);
    let received = sum(|stats| stats.rtp_received);
    let missing = i128::from(expected) - i128::from(received);
    let lost_rate = if expected == 0 { 0.0 } else { (missing.max(0) as f64) / (expected as f64) };
    // Mean over the workers that carry streams.
    let mean = |field: fn(&WorkerStats) -> i64| {
        let busy = stats().filter(|stats| stats.audio_tracks + stats.video_tracks > 0);
        let (total, count) = busy.fold((0_i64, 0_i64), |(total, count), stats| (total + field(stats), count + 1));
        if count == 0 { 0 } else { total / count }
    };
    page.one("sfu_sessions", "gauge", "Rooms.", report.counts.rooms);
    page.one("sfu_peers", "gauge", "Peers in rooms.", report.counts.peers);
    page.one("sfu_audio_tracks", "gauge", "Published audio tracks.", sum(|stats| stats.audio_tracks));
    page.one("sfu_video_tracks", "gauge", "Published video tracks.", sum(|stats| stats.video_tracks));
    page.one("rtp_expected", "counter", "Media packets expected from publishers (RFC 3550 A.3).", expected);
    page.one("rtp_received", "counter", "Media packets received from publishers.", received);
    page.one("rtp_packets", "counter", "Media packets forwarded to subscribers.", sum(|stats| stats.rtp_forwarded));
    page.one("rtp_bytes", "counter", "Bytes received on media ports.", sum(|stats| stats.received_bytes));
    page.one("rtp_expected_minus_received", "gauge", "Media packets from publishers that are missing.", missing);
    page.one("rtp_lost_rate", "gauge", "Missing media packets by expected ones, since the start.", lost_rate);
    let jitter_ms = mean(|stats| i64::try_from(stats.jitter_us).unwrap_or(i64::MAX)) as f64 / 1000.0;
    page.one(
        "rtp_jitter",
        "gauge",
        "Interarrival jitter (RFC 3550 6.4.1), mean of live streams, milliseconds.",
        jitter_ms,
    );
    let drift = mean(|stats| stats.drift_ms);
    page.one("rtp_drift_millis", "gauge", "Wall clock against media clock, mean of live streams, milliseconds.", drift);

    let labels = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    page.head("ringmain_build_info", "gauge", "The version that runs.");
    page.line("ringmain_build_info", &labels, 1);
    page.one("ringmain_uptime_seconds", "gauge", "Time since the start.", report.uptime.as_secs());
    page.one("ringmain_workers", "gauge", "Workers of the data plane.", report.worker_count);
    page.one("ringmain_connections", "gauge", "Open signalling connections.", report.connections);
    let help = "Tracks that wait because their subscriber has as many as it may (limits.subscriptions_per_peer).";
    page.one("ringmain_subscriptions_waiting", "gauge", help, report.counts.subscriptions_waiting);
    page.head("ringmain_refused_total", "counter", "What was refused at the door, by the limit in the way.");
    for (limit, count) in refused {
        page.line("ringmain_refused_total", &format!("{{limit=\"{limit}\"}}"), count);
    }
    let help = "Signalling connections that were cut because they did not read.";
    page.one("ringmain_connections_overflown_total", "counter", help, report.overflows);
    page.one("ringmain_commands_waiting", "gauge", "Commands that wait for a full ring.", report.backlog);
    page.one(
        "ringmain_commands_lost_total",
        "counter",
        "Commands that the data plane never took.",
        report.commands_lost,
    );

    for (name, kind, help, field) in PER_WORKER {
        page.head(name, kind, help);
        for stats in stats() {
            page.line(name, &format!("{{worker=\"{}\"}}", stats.worker), field(stats));
        }
    }
    page.head("ringmain_worker_report_age_seconds", "gauge", "Time since a worker last told its counters.");
    for (stats, age) in &report.workers {
        page.line("ringmain_worker_report_age_seconds", &format!("{{worker=\"{}\"}}", stats.worker), age.as_secs_f64());
    }

    page.one("ringmain_stalled_threads", "gauge", "Threads of the data plane that stand still.", report.stalled.len());
    let outcomes: Vec<String> = HANDSHAKE_OUTCOMES.iter().map(|(name, help, _)| format!("{name}: {help}")).collect();
    let help = format!("What came of DTLS handshakes and data channel messages. {}", outcomes.join(" "));
    page.head("ringmain_handshake_total", "counter", &help);
    for (thread, stats) in &report.handshakes {
        for (name, _, field) in HANDSHAKE_OUTCOMES {
            let labels = format!("{{thread=\"{thread}\",outcome=\"{name}\"}}");
            page.line("ringmain_handshake_total", &labels, field(stats));
        }
    }

    if !report.users.rows().is_empty() {
        page.head("ringmain_turn_user_allocations", "gauge", "Live TURN allocations, by user.");
        page.head(
            "ringmain_turn_user_bytes_total",
            "counter",
            "Payload relayed by TURN, by user, as of the last refresh.",
        );
        for (user, usage) in report.users.rows() {
            let user = escaped(user);
            page.line("ringmain_turn_user_allocations", &format!("{{user=\"{user}\"}}"), usage.allocations);
            let bytes = [("to_peers", usage.to_peers_bytes), ("to_clients", usage.to_clients_bytes)];
            for (direction, bytes) in bytes {
                let labels = format!("{{user=\"{user}\",direction=\"{direction}\"}}");
                page.line("ringmain_turn_user_bytes_total", &labels, bytes);
            }
        }
    }
    if let Some(streams) = &report.streams {
        page.one(
            "ringmain_stream_connections",
            "gauge",
            "Open TCP, TLS and DTLS connections that the data plane serves: TURN, ICE-TCP, and with one_port also HTTP.",
            streams.connections,
        );
        page.one("ringmain_stream_ice_connections", "gauge", "Of those, media by ICE-TCP.", streams.ice);
        page.one("ringmain_stream_accepted_total", "counter", "Such connections accepted.", streams.accepted);
        page.one("ringmain_stream_refused_total", "counter", "Such connections beyond the bounds.", streams.refused);
        page.one(
            "ringmain_stream_handshakes_put_off_total",
            "counter",
            "TLS and DTLS handshakes that had to wait for a later second.",
            streams.handshakes_put_off,
        );
        page.one(
            "ringmain_stream_tls_failed_total",
            "counter",
            "Such connections on which TLS failed.",
            streams.tls_failed,
        );
        page.one(
            "ringmain_stream_queue_full_total",
            "counter",
            "Messages and packets dropped because their client on TCP reads too slowly.",
            streams.queue_full,
        );
    }

    let reasons: Vec<String> =
        DropReason::ALL.iter().map(|reason| format!("{}:{}", reason.metric(), reason.describe())).collect();
    let help = format!("Packets that were not used, by reason. {}", reasons.join(" "));
    page.head("ringmain_dropped_total", "counter", &help);
    for stats in stats() {
        for reason in DropReason::ALL {
            let labels = format!("{{worker=\"{}\",reason=\"{}\"}}", stats.worker, reason.metric());
            page.line("ringmain_dropped_total", &labels, stats.dropped(*reason));
        }
    }
    page.0
}

type PerWorker = (&'static str, &'static str, &'static str, fn(&WorkerStats) -> u64);

const PER_WORKER: [PerWorker; 31] = [
    ("ringmain_received_total", "counter", "Datagrams received.", |stats| stats.received),
    ("ringmain_received_bytes_total", "counter", "Bytes of UDP payload received.", |stats| stats.received_bytes),
    ("ringmain_sent_total", "counter", "Datagrams sent.", |stats| stats.sent),
    ("ringmain_sent_bytes_total", "counter", "Bytes of UDP payload sent.", |stats| stats.sent_bytes),
    ("ringmain_trains_total", "counter", "Sends; datagrams by sends is what segmentation offload saves.", |stats| {
        stats.trains
    }),
    ("ringmain_rtp_received_total", "counter", "Media packets from publishers.", |stats| stats.rtp_received),
    ("ringmain_rtp_forwarded_total", "counter", "Media packets forwarded, one for each subscriber.", |stats| {
        stats.rtp_forwarded
    }),
    ("ringmain_rtx_sent_total", "counter", "Packets resent to subscribers.", |stats| stats.rtx_sent),
    ("ringmain_nacks_sent_total", "counter", "Packets that publishers were asked to resend.", |stats| stats.nacks_sent),
    ("ringmain_keyframe_requests_total", "counter", "Keyframes that publishers were asked for.", |stats| {
        stats.keyframe_requests
    }),
    ("ringmain_transports", "gauge", "Live peer connections.", |stats| stats.transports),
    ("ringmain_audio_tracks", "gauge", "Live published audio tracks.", |stats| stats.audio_tracks),
    ("ringmain_video_tracks", "gauge", "Live published video tracks.", |stats| stats.video_tracks),
    ("ringmain_subscriptions", "gauge", "Tracks on their way to a subscriber.", |stats| stats.subscriptions),
    ("ringmain_turns_total", "counter", "Turns of the run loop.", |stats| stats.turns),
    ("ringmain_turn_allocations", "gauge", "Live TURN allocations.", |stats| stats.turn.allocations),
    ("ringmain_turn_allocated_total", "counter", "TURN allocations made.", |stats| stats.turn.allocated),
    (
        "ringmain_turn_hasty_total",
        "counter",
        "Allocates refused because their user made too many in a second.",
        |stats| stats.turn.hasty,
    ),
    ("ringmain_turn_relay_sockets", "gauge", "Open relay sockets; our own media needs none.", |stats| {
        stats.turn.sockets
    }),
    (
        "ringmain_turn_connections",
        "gauge",
        "TCP connections of peers (RFC 6062), those on their way included.",
        |stats| stats.turn.connections,
    ),
    ("ringmain_turn_connected_total", "counter", "Such connections made, by either side.", |stats| {
        stats.turn.connected
    }),
    ("ringmain_turn_to_peers_total", "counter", "Datagrams relayed to peers.", |stats| stats.turn.traffic.to_peers),
    ("ringmain_turn_to_peers_bytes_total", "counter", "Their payload.", |stats| stats.turn.traffic.to_peers_bytes),
    ("ringmain_turn_to_clients_total", "counter", "Datagrams relayed to clients.", |stats| {
        stats.turn.traffic.to_clients
    }),
    ("ringmain_turn_to_clients_bytes_total", "counter", "Their payload.", |stats| stats.turn.traffic.to_clients_bytes),
    (
        "ringmain_turn_shortcut_total",
        "counter",
        "Datagrams relayed from and to our own media and between our own clients, without a relay socket.",
        |stats| stats.turn.traffic.shortcut,
    ),
    ("ringmain_turn_bindings_total", "counter", "STUN Binding requests answered.", |stats| stats.turn.bindings),
    ("ringmain_turn_challenges_total", "counter", "Replies to those who had proved nothing.", |stats| {
        stats.turn.challenges
    }),
    (
        "ringmain_turn_tokens_of_unknown_keys_total",
        "counter",
        "Tokens refused (RFC 7635) because their key is not in the file, or is over.",
        |stats| stats.turn.tokens_of_unknown_keys,
    ),
    (
        "ringmain_turn_tokens_not_ours_total",
        "counter",
        "Tokens refused because their key did not seal them, or not for this server's name.",
        |stats| stats.turn.tokens_not_ours,
    ),
    (
        "ringmain_turn_tokens_over_total",
        "counter",
        "Tokens refused because they are over, or of the future: compare the clocks.",
        |stats| stats.turn.tokens_over,
    ),
];

type Outcome = (&'static str, &'static str, fn(&HandshakeStats) -> u64);

const HANDSHAKE_OUTCOMES: [Outcome; 12] = [
    ("secured", "Handshakes done.", |stats| stats.secured),
    ("failed", "Handshakes that failed.", |stats| stats.failed),
    ("mismatched", "Certificates that were not the promised ones.", |stats| stats.mismatched),
    ("early", "Datagrams before the peer's fingerprint was known.", |stats| stats.early),
    ("junk", "Datagrams that made no sense.", |stats| stats.junk),
    ("refused", "ClientHellos beyond the limits.", |stats| stats.refused),
    ("messages", "Data channel messages delivered.", |stats| stats.messages),
    ("messages_dropped", "Data channel messages whose reader is too slow.", |stats| stats.messages_dropped),
    ("channels_dropped", "Reliable data channels whose reader is too slow.", |stats| stats.channels_dropped),
    ("api_flooded", "API messages beyond a peer's budget.", |stats| stats.api_flooded),
    ("api_lost", "API messages that the control plane had no room for.", |stats| stats.api_lost),
    ("datagrams_lost", "Datagrams for a worker that does not take them.", |stats| stats.datagrams_lost),
];

/// A label's value may hold anything but these as they are.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page(String);

impl Page {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // The format escapes backslash and line feed in a help text.
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
