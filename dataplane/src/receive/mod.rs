//! What is known of the media that a publisher sends, and the feedback that is owed for it.
//!
//! Everything here takes numbers and `now` and gives numbers back: no bytes of media, no RTCP, no keys, no sockets, no clock,
//! and no allocation after construction. Who writes the RTCP asks for the numbers.
//!
//! | room | question it answers |
//! | --- | --- |
//! | [`policer`] | may this datagram cost us a decryption at all? |
//! | [`stream`] | which packet is this, and how well does its stream arrive? ([`sequence`], [`seen`], [`media_clock`]) |
//! | [`nack`] | what must be sent again? |
//! | [`keyframe`] | must a new keyframe be asked for, now? |
//! | [`transport_cc`], [`remb`] | what does the publisher's congestion control need to hear? |
//! | [`layers`] | which simulcast layers are alive? |
//! | [`audio_level`] | who speaks? |
//! | [`rtt`] | how long is the way, from the times that reports carry? |

pub mod audio_level;
pub mod keyframe;
pub mod layers;
pub mod media_clock;
pub mod nack;
pub mod policer;
pub mod remb;
pub mod rtt;
pub mod seen;
pub mod sequence;
pub mod stream;
pub mod transport_cc;

pub use audio_level::AudioObserver;
pub use keyframe::KeyframeArbiter;
pub use layers::LayerActivity;
pub use nack::{NackGenerator, NeedKeyframe};
pub use policer::Policer;
pub use remb::{ReceiveRate, RembEstimator};
pub use rtt::{NtpClock, NtpTime};
pub use sequence::{Arrival, ArrivalKind, InboundSeq};
pub use stream::{InboundStream, ReportBlock, SenderReport, StreamCounters};
pub use transport_cc::{Feedback, TransportCcRecorder};

#[cfg(test)]
mod chance;
