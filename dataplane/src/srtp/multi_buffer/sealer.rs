//! Packets that lie clear in the transmit batch, with what they are to be sealed with. Sealed together, at the latest when the batch
//! is sent. Owns no packet bytes: the batch lends them.
//!
//! AES-CM with HMAC-SHA1 goes by bursts. AES-GCM goes one by one and still gains by waiting: a packet sealed right behind the stores
//! that wrote its header stalls on them, 41 to 46 ns instead of 27 for 100 bytes.

use std::sync::Arc;

use super::library::{Burst, PACKETS_MAX, Packet};
use crate::srtp::cipher::{Nonce, Waiting};
use crate::srtp::cm::Cm;
use crate::srtp::gcm::Gcm;
use crate::srtp::profile::Profile;

/// Gathers packets and seals them together.
pub(crate) struct Sealer {
    burst: Burst,
    jobs: Vec<Job>,
    /// Keys of the jobs: runs of packets to one subscriber share theirs.
    keys: Vec<Key>,
    /// Of the slot that is being written.
    staged: Option<Job>,
}

enum Key {
    Cm(Arc<Cm>),
    Gcm(Arc<Gcm>),
}

struct Job {
    key_index: usize,
    nonce: Nonce,
    offset: usize,
    header_len: usize,
    clear_len: usize,
}

impl Sealer {
    /// `None` when the library is not to be used.
    pub(crate) fn detect() -> Option<Self> {
        let burst = Burst::new()?;
        Some(Self {
            burst,
            jobs: Vec::with_capacity(PACKETS_MAX),
            // One more: a slot that was staged and dropped leaves its key.
            keys: Vec::with_capacity(PACKETS_MAX + 1),
            staged: None,
        })
    }

    /// The slot that is being written is to be sealed so, when it is committed. Its rollover counter stands behind its clear bytes.
    #[inline]
    pub(crate) fn stage(&mut self, key: Waiting<'_>, nonce: Nonce, header_len: usize, clear_len: usize) {
        if self.keys.last().is_none_or(|last| !last.is(key)) {
            // Nobody refers to the key of a slot that was dropped.
            self.keys.truncate(self.jobs.last().map_or(0, |job| job.key_index + 1));
            self.keys.push(Key::of(key));
        }
        self.staged = Some(Job { key_index: self.keys.len() - 1, nonce, offset: 0, header_len, clear_len });
    }

    /// Another slot begins: what was staged for the last one was never committed.
    #[inline]
    pub(crate) fn unstage(&mut self) {
        self.staged = None;
    }

    /// The slot is part of the batch, at `offset` of the arena. A slot that was not staged is sealed already.
    #[inline]
    pub(crate) fn commit(&mut self, offset: usize) {
        if let Some(job) = self.staged.take() {
            self.jobs.push(Job { offset, ..job });
        }
    }

    /// Whether nothing is left to seal.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether a burst is complete: [`run`](Self::run) before the next commit.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.jobs.len() >= PACKETS_MAX
    }

    /// Forgets what is not sealed.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
        self.keys.clear();
        self.staged = None;
    }

    /// Seals everything that was committed. Of what cannot be sealed the payload is zeroed: it leaves unauthentic and
    /// empty rather than clear.
    pub(crate) fn run(&mut self, arena: &mut [u8]) {
        let Self { burst, jobs, keys, .. } = self;
        let mut sealed = true;
        let mut for_burst = 0;
        for job in jobs.iter() {
            match keys.get(job.key_index) {
                Some(Key::Gcm(gcm)) => sealed &= job.seal_gcm(gcm, arena).is_some(),
                Some(Key::Cm(cm)) => {
                    for_burst += 1;
                    sealed &= cm.gathers();
                }
                None => sealed = false,
            }
        }
        if for_burst >= WORTH_A_BURST {
            sealed &= burst.seal(arena, jobs.iter().filter_map(|job| job.packet(keys)));
        } else if for_burst > 0 {
            for job in jobs.iter() {
                if let Some(Key::Cm(cm)) = keys.get(job.key_index) {
                    sealed &= job.seal_cm(cm, arena).is_some();
                }
            }
        }
        debug_assert!(sealed || cfg!(test), "what is staged was measured");
        if !sealed {
            jobs.iter().for_each(|job| job.wipe(arena));
        }
        self.clear();
    }
}

impl Key {
    fn of(key: Waiting<'_>) -> Self {
        match key {
            Waiting::Cm(cm) => Self::Cm(cm.clone()),
            Waiting::Gcm(gcm) => Self::Gcm(gcm.clone()),
        }
    }

    fn is(&self, key: Waiting<'_>) -> bool {
        match (self, key) {
            (Self::Cm(ours), Waiting::Cm(cm)) => Arc::ptr_eq(ours, cm),
            (Self::Gcm(ours), Waiting::Gcm(gcm)) => Arc::ptr_eq(ours, gcm),
            _ => false,
        }
    }
}

impl Job {
    /// For a burst, if it is one for it. Only keys that have another for bursts are staged.
    fn packet<'a>(&self, keys: &'a [Key]) -> Option<Packet<'a>> {
        let Key::Cm(cm) = keys.get(self.key_index)? else { return None };
        let Self { nonce, offset, header_len, clear_len, .. } = *self;
        Some(Packet { key: cm.burst_key()?, iv: cm.iv(nonce), offset, header_len, clear_len })
    }

    fn seal_cm(&self, cm: &Cm, arena: &mut [u8]) -> Option<()> {
        cm.seal(self.nonce, arena.get_mut(self.offset..)?, self.header_len, self.clear_len).ok()
    }

    fn seal_gcm(&self, gcm: &Gcm, arena: &mut [u8]) -> Option<()> {
        let (clear, tag) = arena.get_mut(self.offset..)?.split_at_mut_checked(self.clear_len)?;
        let (header, payload) = clear.split_at_mut_checked(self.header_len)?;
        gcm.seal(self.nonce, header, payload, tag.get_mut(..GCM_TAG_LEN)?).ok()
    }

    fn wipe(&self, arena: &mut [u8]) {
        let payload = self.offset + self.header_len..arena.len().min(self.offset + self.clear_len);
        if let Some(payload) = arena.get_mut(payload) {
            payload.fill(0);
        }
    }
}

const GCM_TAG_LEN: usize = Profile::AeadAes128Gcm.tag_len();

/// A burst of fewer packets costs more than one after the other: whole lanes are hashed for nothing.
const WORTH_A_BURST: usize = 5;

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({} waiting)", self.jobs.len())
    }
}
