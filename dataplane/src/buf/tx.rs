//! The datagrams that a turn sends, gathered into trains: runs to one destination in segments of one size, the last of which may be
//! shorter. A train is one send for the kernel (`UDP_SEGMENT`). Its segments lie one behind the other in the arena.
//!
//! Reserve, write in place, commit. A slot that is dropped instead leaves nothing behind. Packets may be committed clear, to be sealed
//! together ([`srtp`](crate::srtp)): until they are, the batch has no trains.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use ringmain_shared::DropReason;

use super::links::LinkTable;
use crate::buf::Slab;
use crate::io::{Path, SocketIndex};
use crate::srtp::multi_buffer::Sealer;
use crate::srtp::{Nonce, Waiting};

/// Bytes of datagrams in one batch, at most.
pub const TX_ARENA_SIZE: usize = 256 * 1024;
/// Trains of one batch, at most.
pub const TRAINS_PER_BATCH_MAX: usize = 256;
/// From this size on, a batch is sent when a train ends: what the kernel reads and what is written next stay in a core's second-level
/// cache. Half or twice of it costs the same within 2 %; a quarter, 4 % more, for more system calls. To ask for the room that the next
/// datagram is written to costs more than its misses: 11 ns for 1200 bytes, 2 for where its header goes.
const RIPE_SIZE: usize = 128 * 1024;
/// The same for trains. From 32 to 200 make no difference.
const RIPE_TRAINS: usize = 64;
/// Segments of one train: `UDP_MAX_SEGMENTS` of the kernels that have `UDP_SEGMENT`.
pub const TRAIN_SEGMENTS_MAX: usize = 64;
/// Bytes of one train: the most that one UDP datagram over IPv4 could carry, which the kernel asks of a train as a whole.
pub const TRAIN_SIZE_MAX: usize = 65_507;

/// Datagrams on their way out.
#[derive(Debug)]
pub struct TxBatch {
    arena: Slab,
    used: usize,
    trains: Vec<Train>,
    trains_max: usize,
    /// Where the datagram goes whose slot was reserved last. Not in the slot: that would be copied, and read in other widths than it
    /// was written, which waits for every store before it; 35 ns of 300.
    path: Path,
    /// Another segment may join the last train.
    open: bool,
    /// The kernel still reads the arena: nothing may be reserved.
    lent: bool,
    /// Bytes before the reserved datagram that are its link's; zero when it goes through none.
    front: usize,
    /// The link, if it goes through one.
    link: SocketIndex,
    /// What goes around datagrams that are sent to links.
    links: LinkTable,
    /// Seals packets together, where the CPU and the build can.
    sealer: Option<Sealer>,
}

/// Datagrams for one send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Train {
    /// From which socket, and to whom.
    pub path: Path,
    /// Where its bytes begin in the arena.
    pub offset: usize,
    /// Bytes of all segments.
    pub size: usize,
    /// Bytes of each segment but perhaps the last.
    pub segment_size: usize,
    /// How many there are.
    pub segments: usize,
}

/// Room for one datagram in a [`TxBatch`]. Write to it, then [`commit`](Self::commit); dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct TxSlot<'a> {
    batch: &'a mut TxBatch,
    size_max: usize,
}

impl TxBatch {
    /// Room for a datagram of up to `size_max` bytes. When the batch is full (`TxFull`), flush and reserve again; when the path is a
    /// link that is closed, or whose user has used up what there is, nothing can be done.
    #[inline]
    pub fn reserve(&mut self, path: Path, size_max: usize) -> Result<TxSlot<'_>, DropReason> {
        self.reserve_at(&path, size_max)
    }

    /// The same for a path that is kept elsewhere. One that was just written is read in other widths than it was written, which waits
    /// for every store before it.
    #[inline]
    pub fn reserve_at(&mut self, path: &Path, size_max: usize) -> Result<TxSlot<'_>, DropReason> {
        if !self.has_room(size_max) {
            return Err(DropReason::TxFull);
        }
        if let Some(sealer) = &mut self.sealer {
            sealer.unstage();
        }
        self.front = 0;
        if path.socket.is_link() {
            return self.reserve_link(*path, size_max);
        }
        self.path = *path;
        Ok(TxSlot { batch: self, size_max })
    }

    #[cold]
    fn reserve_link(&mut self, path: Path, size_max: usize) -> Result<TxSlot<'_>, DropReason> {
        let prefix = self.links.prefix(path)?;
        (self.path, self.front, self.link) = (prefix.path(), prefix.size(), path.socket);
        Ok(TxSlot { batch: self, size_max })
    }

    /// The links of this way out.
    pub fn links(&mut self) -> &mut LinkTable {
        &mut self.links
    }

    /// Whether `reserve` of this size would give a slot.
    #[inline]
    pub fn has_room(&self, size_max: usize) -> bool {
        let overhead = self.links.overhead();
        size_max <= TRAIN_SIZE_MAX - overhead
            && size_max + overhead <= self.arena.size() - self.used
            && self.trains.len() < self.trains_max
            && !self.lent
    }

    /// Whether sending now is cheaper than gathering on: a datagram there begins a train, and what lies here is about to leave the
    /// cache before the kernel has read it.
    #[inline]
    pub fn is_ripe(&self, path: &Path) -> bool {
        (self.used >= RIPE_SIZE || self.trains.len() >= RIPE_TRAINS)
            && self.trains.last().is_some_and(|train| train.path != *path)
    }

    /// What is committed next begins a train, whatever it is.
    pub fn end_train(&mut self) {
        self.open = false;
    }

    /// Whether nothing has been committed since the last flush.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Seals what was committed clear. Every link does so before it sends.
    #[inline]
    pub fn seal(&mut self) {
        if let Some(sealer) = &mut self.sealer
            && !sealer.is_empty()
        {
            // SAFETY: the kernel reads nothing of an arena not lent, and one that is lent has nothing left to seal: nothing can be
            // reserved in it, and `lend` comes after `seal`. No other slice of it exists, since `self` is borrowed exclusively.
            sealer.run(unsafe { self.arena.slice_mut(0, self.used) });
        }
    }

    /// What has been committed, in order. Nothing while something is left to seal: what is clear does not leave.
    #[inline]
    pub fn trains(&self) -> &[Train] {
        let sealed = self.sealer.as_ref().is_none_or(Sealer::is_empty);
        if sealed { &self.trains } else { &[] }
    }

    /// Datagrams committed since the last flush.
    pub fn datagrams(&self) -> usize {
        self.trains.iter().map(|train| train.segments).sum()
    }

    /// The bytes of a train, segment behind segment.
    pub fn bytes(&self, train: &Train) -> &[u8] {
        // SAFETY: the arena is written to only through `&mut self`; the kernel only reads it.
        unsafe { self.arena.slice(train.offset, train.size) }
    }

    /// A batch over `arena_size` bytes and at most `trains_max` trains.
    pub(crate) fn new(arena_size: usize, trains_max: usize) -> Self {
        Self {
            arena: Slab::new(arena_size),
            used: 0,
            trains: Vec::with_capacity(trains_max),
            trains_max,
            path: Path { socket: SocketIndex(0), remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)) },
            open: false,
            lent: false,
            front: 0,
            link: SocketIndex(0),
            links: LinkTable::default(),
            sealer: Sealer::detect(),
        }
    }

    /// Forgets everything, once the kernel is done with it.
    pub(crate) fn clear(&mut self) {
        self.trains.clear();
        self.used = 0;
        self.open = false;
        self.lent = false;
        if let Some(sealer) = &mut self.sealer {
            sealer.clear();
        }
    }

    /// Marks the arena as being read by the kernel until `clear`.
    pub(crate) fn lend(&mut self) {
        self.seal();
        self.lent = true;
    }

    /// Puts around a datagram what its link wants there. Its whole size.
    #[cold]
    fn wrap(&mut self, size: usize) -> usize {
        let Some(prefix) = self.links.count(self.link, size) else { return size };
        let whole = prefix.wrapped(size);
        // SAFETY: past `used`, as in `TxSlot::bytes_mut`; the reservation left room for what is around the datagram.
        prefix.write(unsafe { self.arena.slice_mut(self.used, whole) }, size);
        whole
    }

    #[inline]
    fn commit(&mut self, size: usize) {
        let offset = self.used;
        self.used += size;
        if let Some(sealer) = &mut self.sealer {
            sealer.commit(offset + self.front);
            if sealer.is_full() {
                self.seal();
            }
        }
        if let Some(train) = self.trains.last_mut()
            && self.open
            && train.path == self.path
            && size <= train.segment_size
            && train.size + size <= TRAIN_SIZE_MAX
        {
            train.size += size;
            train.segments += 1;
            self.open = size == train.segment_size && train.segments < TRAIN_SEGMENTS_MAX;
            return;
        }
        self.trains.push(Train { path: self.path, offset, size, segment_size: size, segments: 1 });
        self.open = true;
    }
}

impl Train {
    /// Its segments as ranges of its bytes.
    pub fn segment_ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let Self { size, segment_size, .. } = *self;
        (0..self.segments).map(move |index| index * segment_size..((index + 1) * segment_size).min(size))
    }
}

impl TxSlot<'_> {
    /// The room, `size_max` bytes of it. What it holds is left over from earlier datagrams.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: past `used`, so no train covers it; the kernel reads only trains, and none at all of an arena not lent.
        unsafe { self.batch.arena.slice_mut(self.batch.used + self.batch.front, self.size_max) }
    }

    /// Whether the batch seals packets together.
    #[inline]
    pub(crate) fn gathers(&self) -> bool {
        self.batch.sealer.is_some()
    }

    /// Leaves sealing to the batch. The first `clear_len` bytes are header and payload. Behind them is room for the tag, whose length
    /// is added in the commit; for AES-CM, it begins with the rollover counter.
    #[inline]
    pub(crate) fn seal_later(&mut self, key: Waiting<'_>, nonce: Nonce, header_len: usize, clear_len: usize) {
        if let Some(sealer) = &mut self.batch.sealer {
            sealer.stage(key, nonce, header_len, clear_len);
        }
    }

    /// Where the datagram goes.
    pub fn path(&self) -> Path {
        self.batch.path
    }

    /// Sends the first `size` bytes of the room, at least one.
    ///
    /// # Panics
    /// When `size` is zero or more than was reserved.
    #[inline]
    pub fn commit(self, size: usize) {
        assert!(size > 0 && size <= self.size_max, "a datagram fits the room reserved for it");
        let size = if self.batch.front == 0 { size } else { self.batch.wrap(size) };
        self.batch.commit(size);
    }
}
