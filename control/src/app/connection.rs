//! The line between a client's socket task and the actor: texts in with back-pressure, texts out with a bound in bytes.
//!
//! [`Door`] is what the HTTP side holds, [`Connection`] is one open line of it, [`Outbox`] is the actor's end of that line.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringmain_shared::Source;
use tokio::sync::{Notify, mpsc, oneshot};

use super::actor::Report;
use super::parts::ConnectionId;
use crate::turn::{AdminAnswer, AdminQuestion};

/// Opens connections to the actor.
#[derive(Clone, Debug)]
pub struct Door {
    texts: mpsc::Sender<(ConnectionId, String)>,
    comings: mpsc::UnboundedSender<Coming>,
    questions: mpsc::Sender<oneshot::Sender<Report>>,
    orders: mpsc::Sender<(AdminQuestion, oneshot::Sender<AdminAnswer>)>,
    next: Arc<AtomicU64>,
}

/// The actor's side of the door.
#[derive(Debug)]
pub struct Inbox {
    pub(super) texts: mpsc::Receiver<(ConnectionId, String)>,
    /// Unbounded, and yet bounded: two from each connection, of which there is a limit.
    pub(super) comings: mpsc::UnboundedReceiver<Coming>,
    pub(super) questions: mpsc::Receiver<oneshot::Sender<Report>>,
    pub(super) orders: mpsc::Receiver<(AdminQuestion, oneshot::Sender<AdminAnswer>)>,
}

/// A connection comes or goes.
#[derive(Debug)]
pub(super) enum Coming {
    Opened(ConnectionId, Source, Outbox),
    Closed(ConnectionId),
}

/// A client's line to the actor. Dropping it makes its peer leave.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    texts: mpsc::Sender<(ConnectionId, String)>,
    comings: mpsc::UnboundedSender<Coming>,
    line: Arc<Line>,
}

/// The actor's end of a connection.
#[derive(Debug)]
pub(super) struct Outbox {
    line: Arc<Line>,
}

/// What lies between an [`Outbox`] and its [`Connection`]. A channel of tokio's takes 2.5 KiB, for a client that is told nothing too.
#[derive(Debug, Default)]
struct Line {
    state: Mutex<LineState>,
    /// Wakes the one task that reads.
    changed: Notify,
}

#[derive(Debug, Default)]
struct LineState {
    outgoing: VecDeque<Outgoing>,
    /// Bytes that the kernel has not taken yet.
    waiting: usize,
    overflown: bool,
    /// The actor has let go.
    ended: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the actor has for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// A message; once it is written, give the receipt to [`Connection::written`].
    Text(String),
    /// The end.
    Close {
        /// RFC 6455 §7.4.
        code: u16,
        /// For whoever debugs the client.
        reason: String,
    },
    /// The client has let too much pile up; nothing more comes.
    Overflown,
}

/// A door and the inbox behind it.
pub fn door() -> (Door, Inbox) {
    let (texts, texts_in) = mpsc::channel(TEXTS_WAITING_MAX);
    let (comings, comings_in) = mpsc::unbounded_channel();
    let (questions, questions_in) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let (orders, orders_in) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let door = Door { texts, comings, questions, orders, next: Arc::new(AtomicU64::new(1)) };
    (door, Inbox { texts: texts_in, comings: comings_in, questions: questions_in, orders: orders_in })
}

impl Door {
    /// A new connection, whose limits are counted with all others of `from`; `None` once the actor has ended.
    pub fn open(&self, from: impl Into<Source>) -> Option<Connection> {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let line = Arc::<Line>::default();
        self.comings.send(Coming::Opened(id, from.into(), Outbox { line: line.clone() })).ok()?;
        let (texts, comings) = (self.texts.clone(), self.comings.clone());
        Some(Connection { id, texts, comings, line })
    }

    /// How things stand; `None` once the actor has ended.
    pub async fn report(&self) -> Option<Report> {
        let (answer, report) = oneshot::channel();
        self.questions.send(answer).await.ok()?;
        report.await.ok()
    }
}

impl Door {
    /// What an operator asks; `None` once the actor has ended.
    pub async fn ask(&self, question: AdminQuestion) -> Option<AdminAnswer> {
        let (sender, answer) = oneshot::channel();
        self.orders.send((question, sender)).await.ok()?;
        answer.await.ok()
    }
}

impl Connection {
    /// Its name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Passes a client's text on; waits while the actor is behind. `false` once it has ended.
    pub async fn pass(&self, text: String) -> bool {
        self.texts.send((self.id, text)).await.is_ok()
    }

    /// The next thing for the client.
    pub async fn outgoing(&mut self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.next() {
                return outgoing;
            }
            self.line.changed.notified().await;
        }
    }

    fn next(&mut self) -> Option<Outgoing> {
        let mut state = self.line.lock();
        if state.overflown {
            return Some(Outgoing::Overflown);
        }
        let next = state.outgoing.pop_front();
        if state.outgoing.is_empty() {
            state.outgoing = VecDeque::new();
        }
        next.or_else(|| state.ended.then_some(Outgoing::Overflown))
    }

    /// Resolves when the client has let too much pile up.
    pub async fn overflown(&mut self) {
        while !self.line.lock().overflown {
            self.line.changed.notified().await;
        }
    }

    /// A text of `size` bytes is with the kernel now.
    pub fn written(&self, size: usize) {
        self.line.lock().waiting -= size + TEXT_OVERHEAD;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Fails only when the actor is gone, and all peers with it.
        let _ = self.comings.send(Coming::Closed(self.id));
    }
}

impl Outbox {
    /// Queues a text. When the client has not read what is there, the line is cut instead.
    pub(super) fn send(&mut self, text: String) -> Result<(), Overflow> {
        let size = text.len() + TEXT_OVERHEAD;
        let mut state = self.line.lock();
        // What counts is what lies there unread, not the newest message: the first offer in a large room may be longer
        // than the bound, and follows close upon the reply to its join.
        let result = if state.waiting >= OUTGOING_SIZE_MAX {
            state.overflown = true;
            Err(Overflow)
        } else {
            state.outgoing.push_back(Outgoing::Text(text));
            Ok(())
        };
        state.waiting += size;
        drop(state);
        self.line.changed.notify_one();
        result
    }

    /// Queues the end.
    pub(super) fn close(&mut self, code: u16, reason: String) {
        self.line.lock().outgoing.push_back(Outgoing::Close { code, reason });
        self.line.changed.notify_one();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // What was queued last is still to come.
        self.line.lock().ended = true;
        self.line.changed.notify_one();
    }
}

/// A client does not read what it is sent.
#[derive(Debug)]
pub(super) struct Overflow;

/// Bytes that may wait for one client; with as many there, the next message closes it.
pub const OUTGOING_SIZE_MAX: usize = 256 * 1024;
/// What a queued text weighs beside its own bytes, so that empty ones are not free.
const TEXT_OVERHEAD: usize = 64;
/// Texts from all clients that wait for the actor; then their sockets are not read.
const TEXTS_WAITING_MAX: usize = 256;
/// Scrapes that wait for the actor.
const QUESTIONS_WAITING_MAX: usize = 64;
