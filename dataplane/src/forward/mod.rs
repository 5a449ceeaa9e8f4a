//! Forwarding: from what a publisher sent to what each subscriber gets.
//!
//! A [`packet`] goes once into its layer's [`cache`] on the [`track`]. From there, [`ready`], each [`subscription`] takes what it
//! wants: it chooses a layer, gives the packet numbers of its own ([`rewrite`], [`renumber`], [`vp8`]), a [`header`] of
//! its own, and protects it into the transmit batch. What went out stays known in its [`history`], to be sent again.
//! The [`clock`] keeps timestamps of layers and media together.

pub mod cache;
pub mod clock;
pub mod header;
pub mod history;
pub mod packet;
pub mod ready;
pub mod renumber;
pub mod rewrite;
pub mod subscription;
pub mod track;
pub mod vp8;
