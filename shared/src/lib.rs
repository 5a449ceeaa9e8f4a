//! What both planes of Ringmain speak: ids, media words, commands, events, limits and counters.
//!
//! Everything here is a plain value: it can be copied to another process or host and means the same there.
//! No I/O, no clock, no shared memory, no behaviour beyond what makes a wrong value impossible to hold.

pub mod command;
pub mod drop_reason;
pub mod event;
pub mod id;
pub mod limits;
pub mod media;
pub mod now;
pub mod source;
pub mod transport;
pub mod turn;

pub use command::Command;
pub use drop_reason::DropReason;
pub use event::Event;
pub use now::Now;
pub use source::Source;
