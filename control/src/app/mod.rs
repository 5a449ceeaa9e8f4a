//! Where everything is joined: sockets, clock and signals above; the sans-IO core of rooms and the data plane below.
//!
//! [`run`] starts both planes and ends them. [`actor`] is the one task that owns the rooms; [`parts`] says what it expects
//! of rooms and data plane; [`greeting`] tells the operator where to look; `operations` answers operators; `wall_clock` sees when
//! the time is set; [`host`] knows this host's addresses, `listeners` what is to be listened for on TCP; [`log`] is the file that log
//! lines go to, if they go to one.

pub mod actor;
pub mod connection;
mod descriptors;
pub mod greeting;
pub mod host;
mod listeners;
pub mod log;
mod operations;
pub mod parts;
pub mod planes;
pub mod run;
mod wall_clock;

#[cfg(test)]
pub(crate) mod fakes;
#[cfg(test)]
mod tests;
