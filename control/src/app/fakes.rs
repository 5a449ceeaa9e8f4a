//! Rooms that echo and a data plane that is fed by hand, for the tests of actor and HTTP.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use ringmain_shared::command::Command;
use ringmain_shared::event::Event;
use ringmain_shared::now::Now;
use ringmain_shared::source::Source;

use super::parts::{ConnectionId, Counts, DataPlane, Output, Rooms};

/// Answers `echo …` with the rest, `close` with a close, `flood N` with N kilobytes, and tells what it was told.
#[derive(Debug)]
pub(crate) struct EchoRooms {
    outputs: VecDeque<Output>,
    told: mpsc::Sender<Told>,
    due: Option<Now>,
    peers: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Told {
    Opened(ConnectionId, Source),
    Message(ConnectionId, String),
    Closed(ConnectionId),
    Event(Event),
    Timeout,
    Command(Command),
    Shutdown,
}

impl EchoRooms {
    pub(crate) fn new(told: mpsc::Sender<Told>) -> Self {
        Self { outputs: VecDeque::new(), told, due: None, peers: 0 }
    }
}

impl Rooms for EchoRooms {
    fn handle_opened(&mut self, connection: ConnectionId, from: Source, _now: Now) {
        let _ = self.told.send(Told::Opened(connection, from));
    }

    fn handle_message(&mut self, connection: ConnectionId, text: &str, now: Now) {
        let _ = self.told.send(Told::Message(connection, text.into()));
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "echo" => self.outputs.push_back(Output::Send { connection, text: rest.into() }),
            "close" => {
                self.outputs.push_back(Output::Send { connection, text: "goodbye".into() });
                let reason = "as you wish".repeat(20);
                self.outputs.push_back(Output::Close { connection, code: 4001, reason });
            }
            "flood" => {
                for _ in 0..rest.parse::<usize>().unwrap_or(0) {
                    self.outputs.push_back(Output::Send { connection, text: "x".repeat(1024) });
                }
            }
            "commands" => {
                for request in 0..rest.parse::<u64>().unwrap_or(0) {
                    self.outputs.push_back(Output::Command(Command::Snapshot { request }));
                }
            }
            "timer" => self.due = Some(now + std::time::Duration::from_millis(20)),
            _ => {}
        }
    }

    fn handle_closed(&mut self, connection: ConnectionId, _now: Now) {
        let _ = self.told.send(Told::Closed(connection));
    }

    fn handle_event(&mut self, event: Event, _now: Now) {
        let _ = self.told.send(Told::Event(event));
    }

    fn handle_timeout(&mut self, _now: Now) {
        self.due = None;
        let _ = self.told.send(Told::Timeout);
    }

    fn poll_timeout(&self) -> Option<Now> {
        self.due
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn counts(&self) -> Counts {
        Counts { rooms: 1, peers: self.peers, joins_refused: 0, subscriptions_waiting: 0 }
    }
}

/// Takes `room` commands at a time; the test gives events. A byte in a socket pair stands for the eventfd.
#[derive(Debug)]
pub(crate) struct FakePlane {
    told: mpsc::Sender<Told>,
    events: mpsc::Receiver<Event>,
    wake: UnixStream,
    /// Refuses so many commands before it takes one.
    pub(crate) refuse: usize,
    refused: usize,
}

/// The test's end of a [`FakePlane`].
#[derive(Debug)]
pub(crate) struct Feeder {
    events: mpsc::Sender<Event>,
    wake: UnixStream,
}

impl FakePlane {
    pub(crate) fn new(told: mpsc::Sender<Told>) -> (Self, Feeder) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("a socket");
        }
        let (sender, events) = mpsc::channel();
        (Self { told, events, wake: theirs, refuse: 0, refused: 0 }, Feeder { events: sender, wake: ours })
    }
}

impl Feeder {
    pub(crate) fn give(&mut self, event: Event) {
        self.events.send(event).expect("the plane lives");
        // A full pair is readable already.
        let _ = self.wake.write(&[1]);
    }
}

impl DataPlane for FakePlane {
    fn send(&mut self, command: Command) -> Result<(), Command> {
        if self.refused < self.refuse {
            self.refused += 1;
            return Err(command);
        }
        self.refused = 0;
        let _ = self.told.send(Told::Command(command));
        Ok(())
    }

    fn try_recv(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok();
        if event.is_none() {
            while matches!((&self.wake).read(&mut [0; 4096]), Ok(1..)) {}
            // What came between the two looks.
            return self.events.try_recv().ok();
        }
        event
    }

    fn waiting_and_lost(&self) -> (usize, u64) {
        (0, 0)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn shutdown(self) {
        let _ = self.told.send(Told::Shutdown);
    }
}
