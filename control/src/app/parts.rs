//! What the actor expects of the two things it joins. Both are values in, values out: they read no clock and own no socket
//! that the actor would have to know of.

use std::os::fd::BorrowedFd;

use ringmain_shared::command::Command;
use ringmain_shared::event::Event;
use ringmain_shared::now::Now;
use ringmain_shared::source::Source;

pub use crate::session::{ConnectionId, Output};

/// The rooms and what is said to them.
pub trait Rooms: Send + 'static {
    /// A client has connected; the address is what limits are counted by.
    fn handle_opened(&mut self, connection: ConnectionId, from: Source, now: Now);
    /// A text from a client.
    fn handle_message(&mut self, connection: ConnectionId, text: &str, now: Now);
    /// The client is gone.
    fn handle_closed(&mut self, connection: ConnectionId, now: Now);
    /// A fact from the data plane.
    fn handle_event(&mut self, event: Event, now: Now);
    /// The time of [`Rooms::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Now);
    /// When to call [`Rooms::handle_timeout`] next.
    fn poll_timeout(&self) -> Option<Now>;
    /// The next thing to do, in order.
    fn poll_output(&mut self) -> Option<Output>;
    /// For the metrics.
    fn counts(&self) -> Counts;
}

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Rooms.
    pub rooms: usize,
    /// Peers in them.
    pub peers: usize,
    /// Joins that were refused for there being too many, since the start.
    pub joins_refused: u64,
    /// Tracks that peers would get, had they not as many as they may.
    pub subscriptions_waiting: usize,
}

/// The data plane, as control sees it.
pub trait DataPlane: Send + 'static {
    /// Gives a command to its worker; a full ring hands it back.
    #[expect(clippy::result_large_err, reason = "a failed push gives the value back")]
    fn send(&mut self, command: Command) -> Result<(), Command>;
    /// The next event, if one waits.
    fn try_recv(&mut self) -> Option<Event>;
    /// Orders that wait within the data plane, and those that were lost there.
    fn waiting_and_lost(&self) -> (usize, u64);
    /// An eventfd that is written to whenever events come to wait.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Ends the workers and waits for them.
    fn shutdown(self);
}
