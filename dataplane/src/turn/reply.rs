//! Answers: to whom, under which key, in which shape. An answer repeats how it was asked: with the integrity of the request, and with
//! a FINGERPRINT if that had one.

use arrayvec::ArrayVec;
use ringmain_shared::DropReason;

use super::allocation::Client;
use crate::io::{Path, Transmit};
use crate::packet::stun::{Class, IntegrityKey, IntegrityKey256, MessageWriter, TransactionId, error};

/// Bytes of the longest answer: a challenge with the longest realm and server name, or a 420 with all that it may name.
pub(super) const REPLY_SIZE_MAX: usize = 512;
/// Attributes that a 420 names.
pub(super) const UNKNOWN_MAX: usize = 16;

/// What an answer repeats of its request.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    pub(super) client: Client,
    pub(super) method: u16,
    pub(super) transaction_id: TransactionId,
    pub(super) fingerprint: bool,
    /// `None` until the sender is known.
    pub(super) seal: Option<Seal>,
}

/// The integrity that a request had, and its answer gets.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, for as long as a reply is written")]
pub(super) enum Seal {
    Sha1(IntegrityKey),
    Sha256(IntegrityKey256),
}

/// Why a request is not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) unknown: ArrayVec<u16, UNKNOWN_MAX>,
}

impl From<u16> for Refusal {
    fn from(code: u16) -> Self {
        Self { code, unknown: ArrayVec::new() }
    }
}

impl ReplyTo {
    /// Sends an answer of this class with these attributes.
    pub(super) fn send(
        &self,
        class: Class,
        attributes: impl FnOnce(&mut MessageWriter<'_>),
        out: &mut dyn Transmit,
    ) -> Result<(), DropReason> {
        let reply = self.compose::<REPLY_SIZE_MAX>(class, attributes).ok_or(DropReason::TxFull)?;
        transmit(self.client.path, &reply, out)
    }

    /// Such an answer of up to `SIZE` bytes, to be sent otherwise.
    pub(super) fn compose<const SIZE: usize>(
        &self,
        class: Class,
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Option<ArrayVec<u8, SIZE>> {
        let mut reply = ArrayVec::from([0; SIZE]);
        let mut message = MessageWriter::new(&mut reply, class, self.method, self.transaction_id);
        attributes(&mut message);
        match &self.seal {
            Some(Seal::Sha1(key)) => message.integrity(key),
            Some(Seal::Sha256(key)) => message.integrity_sha256(key),
            None => {}
        }
        let len = if self.fingerprint { message.finish() } else { message.finish_bare() };
        reply.truncate(len?);
        Some(reply)
    }

    /// Sends an error.
    pub(super) fn refuse(&self, refusal: &Refusal, out: &mut dyn Transmit) -> Result<(), DropReason> {
        let attributes = |message: &mut MessageWriter<'_>| {
            message.error_code_bare(refusal.code);
            if refusal.code == error::UNKNOWN_ATTRIBUTE {
                message.unknown_attributes(&refusal.unknown);
            }
        };
        self.send(Class::Error, attributes, out)
    }
}

/// Puts one datagram into the batch.
pub(super) fn transmit(path: Path, bytes: &[u8], out: &mut dyn Transmit) -> Result<(), DropReason> {
    write(path, bytes.len(), |room| room.copy_from_slice(bytes), out)
}

/// Has one datagram of `size` bytes written into the batch.
#[inline]
pub(super) fn write(
    path: Path,
    size: usize,
    fill: impl FnOnce(&mut [u8]),
    out: &mut dyn Transmit,
) -> Result<(), DropReason> {
    if !out.batch().has_room(size) {
        out.flush();
    }
    let mut slot = out.batch().reserve(path, size)?;
    fill(slot.bytes_mut());
    slot.commit(size);
    Ok(())
}
