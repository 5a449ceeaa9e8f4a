//! The command line of `ringmain load`, and the checks that no single flag can make.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::client::Chatter;
use super::frames::{AUDIO_SIZE_MIN, PAYLOAD_SIZE_MAX, VIDEO_SIZE_MIN, VideoShape};
use super::messages::MESSAGE_SIZE_MIN;
use super::publisher::Content;
use super::secure::Version;

/// Load on a server that speaks ion-sfu's dialect: publishers and subscribers over real ICE, DTLS and SRTP.
#[derive(Parser, Clone, Debug)]
#[command(name = "ringmain load", bin_name = "ringmain load", version, after_help = EXAMPLES)]
pub struct Options {
    /// Signalling of the server; only addresses of this host are taken
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:7000/ws")]
    pub(super) url: String,
    /// Publishers in each room
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub(super) publishers: u32,
    /// Subscribers in each room
    #[arg(short, long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(super) subscribers: u32,
    /// Rooms
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rooms: u32,
    /// Seconds of the measured window
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(super) duration: f64,
    /// Seconds between the last join and the window
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(super) warmup: f64,
    /// Clients that join each second; 0 is as fast as they get in, 32 at a time
    #[arg(long, value_name = "PER SECOND", default_value_t = 100.0)]
    pub(super) join_rate: f64,
    /// The same seed gives the same media and the same names
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) seed: u64,

    /// Frames per second of each publisher's video; 0 is none
    #[arg(long, value_name = "PER SECOND", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=10_000), help_heading = "Media")]
    pub(super) fps: u32,
    /// Packets of a frame
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Media")]
    pub(super) packets: u32,
    /// RTP payload of a video packet
    #[arg(long, value_name = "BYTES", default_value_t = 1100, help_heading = "Media")]
    pub(super) size: usize,
    /// Sizes of a frame's packets differ by a byte, as libwebrtc's do
    #[arg(long, help_heading = "Media")]
    pub(super) uneven: bool,
    /// Microseconds between packets of a frame; 0 is a burst
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, help_heading = "Media")]
    pub(super) spacing: u64,
    /// Audio as well: 50 packets per second
    #[arg(long, help_heading = "Media")]
    pub(super) audio: bool,
    /// RTP payload of an audio packet, evenly distributed
    #[arg(long, value_name = "FROM-TO", default_value = "80-160", value_parser = range, help_heading = "Media")]
    pub(super) audio_size: RangeInclusive<usize>,

    /// Data channels on every connection, and so many messages per second of each publisher to all others; 0 is silence (ion-sfu
    /// carries those of one publisher in each room)
    #[arg(long, value_name = "PER SECOND", num_args = 0..=1, default_missing_value = "10", conflicts_with = "bare",
          value_parser = clap::value_parser!(u32).range(..=10_000), help_heading = "Media")]
    pub(super) data_channel: Option<u32>,
    /// Bytes of such a message
    #[arg(long, value_name = "BYTES", default_value_t = 200, help_heading = "Media")]
    pub(super) message_size: usize,

    /// Open and check one packet in so many of each stream; the rest are counted by their headers
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=16_384), help_heading = "Clients")]
    pub(super) verify: u64,
    /// DTLS of the clients; Chromium gets 1.2 here, so that SRTP uses AES-128-GCM (ion-sfu has only that)
    #[arg(long, value_name = "VERSION", default_value = "1.2", help_heading = "Clients")]
    pub(super) dtls: Version,
    /// Take any certificate of a wss:// server, a self-signed one too
    #[arg(long, help_heading = "Clients")]
    pub(super) insecure: bool,
    /// Subscribers have one connection instead of ion-sdk-js's two, and no data channel (ion-sfu refuses them)
    #[arg(long, help_heading = "Clients")]
    pub(super) bare: bool,
    /// Have the kernel deliver every datagram singly, where a train costs least over loopback
    #[arg(long, help_heading = "Clients")]
    pub(super) no_gro: bool,
    /// Throw away so much of the media at both ends, as a bad network would, and have it repaired
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, help_heading = "Clients")]
    pub(super) drop: f64,
    /// Threads that receive
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Clients")]
    pub(super) threads: u16,
    /// Aim at an address that is not of this host
    #[arg(long, help_heading = "Clients")]
    pub(super) yes_really: bool,

    /// Find the highest load with loss below 0.1 % and a p99 delay below 50 ms, in steps
    #[arg(long, value_name = "WHAT", help_heading = "What is measured")]
    pub(super) ramp: Option<Ramp>,
    /// During the window, further subscribers join each second and leave again; the others' media must not suffer
    #[arg(long, value_name = "PER SECOND", help_heading = "What is measured")]
    pub(super) churn: Option<f64>,
    /// They join rooms of their own, one each, where nothing is sent: what joining alone does to the others
    #[arg(long, requires = "churn", help_heading = "What is measured")]
    pub(super) churn_apart: bool,
    /// Seconds that such a subscriber stays once it is connected
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, help_heading = "What is measured")]
    pub(super) churn_stay: f64,
    /// No media: how fast clients get in, and what it costs
    #[arg(long, conflicts_with_all = ["ramp", "churn"], help_heading = "What is measured")]
    pub(super) joins_only: bool,
    /// Read CPU, memory and context switches of this process and its children
    #[arg(long, value_name = "PID", help_heading = "What is measured")]
    pub(super) server_pid: Option<u32>,
    /// Fail when more than this is lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, help_heading = "What is measured")]
    pub(super) loss_max: f64,
    /// Print one JSON object instead of a table
    #[arg(long, help_heading = "What is measured")]
    pub(super) json: bool,
}

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Ramp {
    /// Subscribers of each room
    Subscribers,
    /// Frames per second
    Fps,
}

impl Options {
    /// Checks what belongs together.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let whole = |name: &str, value: f64, max: f64| {
            anyhow::ensure!((0.0..=max).contains(&value), "--{name}: {value} is not between 0 and {max}");
            Ok(())
        };
        whole("duration", self.duration, 86_400.0)?;
        whole("warmup", self.warmup, 3600.0)?;
        whole("join-rate", self.join_rate, 100_000.0)?;
        whole("churn", self.churn.unwrap_or(0.0), 100_000.0)?;
        whole("churn-stay", self.churn_stay, 3600.0)?;
        whole("loss-max", self.loss_max, 100.0)?;
        whole("drop", self.drop, 50.0)?;
        anyhow::ensure!(self.duration >= 0.1, "--duration: nothing can be said of less than 0.1 seconds");
        anyhow::ensure!(
            (VIDEO_SIZE_MIN..=PAYLOAD_SIZE_MAX).contains(&self.size),
            "--size: {} is not between {VIDEO_SIZE_MIN} and {PAYLOAD_SIZE_MAX}",
            self.size
        );
        let (from, to) = (*self.audio_size.start(), *self.audio_size.end());
        anyhow::ensure!(
            AUDIO_SIZE_MIN <= from && from <= to && to <= PAYLOAD_SIZE_MAX,
            "--audio-size: {from}-{to} is no range within {AUDIO_SIZE_MIN}-{PAYLOAD_SIZE_MAX}"
        );
        anyhow::ensure!(
            (MESSAGE_SIZE_MIN..=MESSAGE_SIZE_MAX).contains(&self.message_size),
            "--message-size: {} is not between {MESSAGE_SIZE_MIN} and {MESSAGE_SIZE_MAX}",
            self.message_size
        );
        anyhow::ensure!(
            self.spacing.saturating_mul(u64::from(self.packets) * u64::from(self.fps)) <= 1_000_000,
            "--spacing: {} packets {} µs apart do not fit a frame at {} per second",
            self.packets,
            self.spacing,
            self.fps
        );
        let clients = u64::from(self.rooms) * (u64::from(self.publishers) + u64::from(self.subscribers));
        anyhow::ensure!(clients > 0, "there is nobody to join: give --publishers or --subscribers");
        anyhow::ensure!(
            self.joins_only || self.publishers == 0 || self.fps > 0 || self.audio || self.data_channel.is_some(),
            "publishers have nothing to send: give --fps, --audio or --data-channel"
        );
        anyhow::ensure!(
            self.ramp.is_none() || (self.publishers > 0 && self.subscribers > 0 && !self.contents().is_empty()),
            "--ramp needs media: give --publishers, --subscribers, and --fps or --audio"
        );
        anyhow::ensure!(self.ramp != Some(Ramp::Fps) || self.fps > 0, "--ramp fps needs --fps to begin with");
        Ok(())
    }

    /// What each publisher says on its data channel.
    pub(super) fn chatter(&self) -> Option<Chatter> {
        let size = self.message_size;
        self.data_channel.map(|per_second| Chatter { per_second, size })
    }

    /// What each publisher sends.
    pub(super) fn contents(&self) -> Vec<Content> {
        let audio = Content::Audio { size_min: *self.audio_size.start(), size_max: *self.audio_size.end() };
        let shape = VideoShape { fps: self.fps, packets: self.packets as usize, size: self.size, uneven: self.uneven };
        let video = Content::Video { shape, spacing: Duration::from_micros(self.spacing) };
        let wanted = [(self.audio, audio), (self.fps > 0, video)];
        wanted.into_iter().filter_map(|(is_wanted, content)| is_wanted.then_some(content)).collect()
    }
}

/// What servers commonly take; ours takes 64 KiB.
const MESSAGE_SIZE_MAX: usize = 65_536;

fn range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("{text:?} is not a number of bytes"));
    Ok(number(from)?..=number(to)?)
}

const EXAMPLES: &str = "\
Examples:
  ringmain load -s 100 --server-pid $(pidof ringmain)          One camera, a hundred viewers
  ringmain load -p 4 -s 20 -r 10 --audio --uneven --json       Ten rooms, video and audio, for a script
  ringmain load -s 20 --ramp subscribers                       How many viewers are too many?
  ringmain load -p 0 -s 2000 --joins-only --join-rate 0        How many can join in a second?
  ringmain load -s 50 --churn 200                              Does coming and going disturb the others?
  ringmain load -s 100 --churn 400 --churn-apart --dtls 1.3    Does joining alone?
  ringmain load -p 0 -s 1000 --data-channel --server-pid PID   What does a subscriber with data channels weigh?
  ringmain load wss://localhost:7000/ws --insecure             A server with a self-signed certificate

The CPU of sending to this host's own addresses includes the kernel's work of receiving; compare runs of one kind only.
The exit status is 1 when nothing arrived, a client failed, something arrived spoilt or too much was lost.";
