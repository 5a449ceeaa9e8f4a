//! Who holds what: which receives are armed, which buffers the kernel has, which trains and calls are unanswered.
//!
//! A pure function of what was asked and what was answered, so that a test can answer anything: late, twice, wrongly, never. An answer
//! that fits nothing outstanding changes nothing. A buffer is handed out at most once between two returns.

use std::collections::VecDeque;

use super::token::Token;

/// One entry of the completion queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// What a completion means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Buffer `buffer` holds a receive header and a datagram, `size` bytes together.
    Datagram { socket: u16, buffer: u16, size: u32 },
    /// Buffer `buffer` holds nothing of use and may go back.
    Return { buffer: u16 },
    /// A receive found no buffer.
    Starved,
    /// A receive ended with an error.
    ReceiveFailed { socket: u16, errno: i32 },
    /// The kernel took a train, or some bytes of it.
    Sent { train: u16, bytes: u32 },
    /// The kernel refused a train.
    SendFailed { train: u16, errno: i32 },
    /// Someone called for us.
    Woken,
    /// Our call was heard, or could not be.
    Called { slot: u16, heard: bool },
    /// The poll, a receive or the cancelling of one ended without news.
    Ended,
    /// Answers nothing outstanding.
    Stale,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// By socket.
    receives: Vec<Receive>,
    /// Sockets whose receive has ended, or never began. Each is named once.
    ended: VecDeque<u16>,
    poll: Shot,
    /// Whether the kernel may write to a buffer.
    lent: Box<[bool]>,
    lent_count: usize,
    sends: Sends,
    calls: Box<[Shot]>,
    calls_due: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Receive {
    shot: Shot,
    cancel: Shot,
    /// It is in the list of those that have ended.
    listed: bool,
}

/// An operation that has at most one instance outstanding.
#[derive(Clone, Copy, Debug, Default)]
struct Shot {
    armed: bool,
    generation: u32,
}

/// The trains of one round.
#[derive(Debug)]
struct Sends {
    generation: u32,
    outstanding: Box<[bool]>,
    count: usize,
}

impl Ledger {
    pub(super) fn new(buffers: usize, trains: usize, calls: usize) -> Self {
        Self {
            receives: Vec::new(),
            ended: VecDeque::new(),
            poll: Shot::default(),
            lent: vec![false; buffers].into(),
            lent_count: 0,
            sends: Sends { generation: 0, outstanding: vec![false; trains].into(), count: 0 },
            calls: vec![Shot::default(); calls].into(),
            calls_due: 0,
        }
    }

    /// A socket may be received from.
    pub(super) fn add_receive(&mut self, socket: u16) {
        let place = usize::from(socket);
        if self.receives.len() <= place {
            self.receives.resize(place + 1, Receive::default());
        }
        self.list(socket);
    }

    /// The next socket whose receive has ended, in the order in which they did.
    pub(super) fn next_ended(&mut self) -> Option<u16> {
        let socket = self.ended.pop_front()?;
        self.receives[usize::from(socket)].listed = false;
        Some(socket)
    }

    /// How many have.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// A receive is begun, unless one is under way.
    pub(super) fn arm_receive(&mut self, socket: u16) -> Option<Token> {
        let receive = self.receives.get_mut(usize::from(socket))?;
        receive.shot.arm().map(|generation| Token::Receive { socket, generation })
    }

    /// A receive is cancelled: the token of the cancelling, and the receive's. `None` when there is none, or it is being cancelled.
    pub(super) fn cancel_receive(&mut self, socket: u16) -> Option<(Token, Token)> {
        let receive = self.receives.get_mut(usize::from(socket)).filter(|receive| receive.shot.armed)?;
        let generation = receive.cancel.arm()?;
        Some((Token::Cancel { socket, generation }, Token::Receive { socket, generation: receive.shot.generation }))
    }

    /// Whether the kernel may still answer a receive of this socket.
    pub(super) fn is_receiving(&self, socket: u16) -> bool {
        self.receives.get(usize::from(socket)).is_some_and(|receive| receive.shot.armed || receive.cancel.armed)
    }

    /// The poll is begun, unless it is under way.
    pub(super) fn arm_poll(&mut self) -> Option<Token> {
        self.poll.arm().map(|generation| Token::Poll { generation })
    }

    /// A buffer is given to the kernel. False when the kernel has it already.
    pub(super) fn lend(&mut self, buffer: u16) -> bool {
        let fresh = !std::mem::replace(&mut self.lent[usize::from(buffer)], true);
        self.lent_count += usize::from(fresh);
        fresh
    }

    /// Buffers that the kernel may write to.
    pub(super) fn lent(&self) -> usize {
        self.lent_count
    }

    /// The sends of a batch begin. All of the batch before must have been answered.
    pub(super) fn begin_round(&mut self) {
        debug_assert_eq!(self.sends.count, 0, "the kernel still reads the arena");
        self.sends.generation = self.sends.generation.wrapping_add(1);
    }

    /// A train is given to the kernel.
    pub(super) fn send(&mut self, train: u16) -> Token {
        self.sends.outstanding[usize::from(train)] = true;
        self.sends.count += 1;
        Token::Send { train, generation: self.sends.generation }
    }

    /// Trains that the kernel has not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.sends.count
    }

    /// Answers that come as soon as their questions are submitted.
    pub(super) fn answers_due(&self) -> usize {
        self.sends.count + self.calls_due
    }

    /// A call to another ring begins, if there is a slot.
    pub(super) fn call(&mut self) -> Option<(u16, Token)> {
        let slot = self.calls.iter().position(|call| !call.armed)?;
        let generation = self.calls[slot].arm()?;
        self.calls_due += 1;
        Some((slot as u16, Token::Message { slot: slot as u16, generation }))
    }

    /// Whether anything is outstanding that could still touch our memory.
    pub(super) fn is_idle(&self) -> bool {
        !self.poll.armed
            && !self.receives.iter().any(|receive| receive.shot.armed || receive.cancel.armed)
            && self.sends.count == 0
            && self.calls_due == 0
    }

    pub(super) fn handle_completion(&mut self, completion: Completion) -> Effect {
        let Completion { user_data, result, flags } = completion;
        let more = io_uring::cqueue::more(flags);
        match Token::from_user_data(user_data) {
            Some(Token::Receive { socket, generation }) => {
                let receive = self.receives.get_mut(usize::from(socket));
                let current = receive.is_some_and(|receive| receive.shot.answer(generation, more));
                if current && !more {
                    self.list(socket);
                }
                self.handle_received(socket, current, result, io_uring::cqueue::buffer_select(flags))
            }
            Some(Token::Cancel { socket, generation }) => {
                let receive = self.receives.get_mut(usize::from(socket));
                match receive.is_some_and(|receive| receive.cancel.answer(generation, false)) {
                    true => Effect::Ended,
                    false => Effect::Stale,
                }
            }
            Some(Token::Send { train, generation }) => {
                if !self.answer_send(train, generation) {
                    Effect::Stale
                } else if result < 0 {
                    Effect::SendFailed { train, errno: -result }
                } else {
                    Effect::Sent { train, bytes: result as u32 }
                }
            }
            Some(Token::Poll { generation }) => match self.poll.answer(generation, more) {
                true if result >= 0 => Effect::Woken,
                true => Effect::Ended,
                false => Effect::Stale,
            },
            Some(Token::Call) => Effect::Woken,
            Some(Token::Message { slot, generation }) => {
                let current = self.calls.get_mut(usize::from(slot)).is_some_and(|call| call.answer(generation, false));
                self.calls_due -= usize::from(current);
                if current { Effect::Called { slot, heard: result >= 0 } } else { Effect::Stale }
            }
            None => Effect::Stale,
        }
    }

    fn list(&mut self, socket: u16) {
        if !std::mem::replace(&mut self.receives[usize::from(socket)].listed, true) {
            self.ended.push_back(socket);
        }
    }

    fn handle_received(&mut self, socket: u16, current: bool, result: i32, buffer: Option<u16>) -> Effect {
        // Whatever else the answer says, a buffer that the kernel had and now names is ours again.
        let buffer = buffer.filter(|&buffer| self.reclaim(buffer));
        match (current, buffer) {
            (true, Some(buffer)) if result >= 0 => Effect::Datagram { socket, buffer, size: result as u32 },
            (_, Some(buffer)) => Effect::Return { buffer },
            (true, None) if result == -libc::ENOBUFS => Effect::Starved,
            (true, None) if result == -libc::ECANCELED => Effect::Ended,
            (true, None) if result < 0 => Effect::ReceiveFailed { socket, errno: -result },
            (true, None) => Effect::Stale,
            (false, None) => Effect::Stale,
        }
    }

    fn reclaim(&mut self, buffer: u16) -> bool {
        let had = self.lent.get_mut(usize::from(buffer)).is_some_and(std::mem::take);
        self.lent_count -= usize::from(had);
        had
    }

    fn answer_send(&mut self, train: u16, generation: u32) -> bool {
        if self.sends.generation != generation {
            return false;
        }
        let answered = self.sends.outstanding.get_mut(usize::from(train)).is_some_and(std::mem::take);
        self.sends.count -= usize::from(answered);
        answered
    }
}

impl Shot {
    fn arm(&mut self) -> Option<u32> {
        if std::mem::replace(&mut self.armed, true) {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        Some(self.generation)
    }

    /// Whether the answer is to what is armed. Without `more` to come, it no longer is.
    fn answer(&mut self, generation: u32, more: bool) -> bool {
        let current = self.armed && self.generation == generation;
        if current {
            self.armed = more;
        }
        current
    }
}
