//! Makes a ring: what the kernel must know, and what the ring may do and no more.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::register::{Probe, Restriction};
use io_uring::{IoUring, opcode, squeue};

use super::buffers::{BUFFER_STRIDE, BufferRing};
use super::enter::{REGISTER_RING_FDS, UNREGISTER_RING_FDS};
use super::{BUFFER_GROUP, Sizes};
use crate::buf::RxBatch;
use crate::io::WakeHandle;
use crate::io::open::Unavailable;
use crate::io::table::check_fixed;

/// A disabled ring over these sockets, with its buffers and its bell.
pub(super) fn set_up(
    sockets: &[UdpSocket],
    sizes: Sizes,
) -> Result<(RxBatch, IoUring, BufferRing, WakeHandle), Unavailable> {
    check_fixed(sockets).map_err(|error| Unavailable { step: "sockets", error })?;
    let ring: IoUring = IoUring::builder()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(sizes.completions)
        .build(sizes.submissions)
        .map_err(|error| Unavailable { step: "io_uring_setup", error })?;
    probe(&ring)?;
    // SAFETY: the ring is open for as long as the borrow.
    let own = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    let wake = own
        .try_clone_to_owned()
        .and_then(|fd| WakeHandle::new(Some(fd)))
        .map_err(|error| Unavailable { step: "eventfd", error })?;
    let mut files: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    files.push(wake.event_fd());
    ring.submitter().register_files(&files).map_err(|error| Unavailable { step: "IORING_REGISTER_FILES", error })?;
    let rx = RxBatch::new(usize::from(sizes.buffers) * BUFFER_STRIDE);
    let buffers = BufferRing::new(sizes.buffers, rx.slab().base());
    // SAFETY: the address is that of a ring of as many entries, page-aligned, which lives as long as the registration: `close` ends it.
    unsafe { ring.submitter().register_buf_ring_with_flags(buffers.address(), buffers.count(), BUFFER_GROUP, 0) }
        .map_err(|error| Unavailable { step: "IORING_REGISTER_PBUF_RING", error })?;
    restrict(&ring).map_err(|error| Unavailable { step: "IORING_REGISTER_RESTRICTIONS", error })?;
    Ok((rx, ring, buffers, wake))
}

/// Multishot receives (6.0) and a SEND to an address (6.1) cannot be asked for; kernels that know `IORING_SETUP_DEFER_TASKRUN` (6.1),
/// which we have by now, have them.
fn probe(ring: &IoUring) -> Result<(), Unavailable> {
    let missing = |what: &str| Unavailable {
        step: "probe",
        error: io::Error::new(io::ErrorKind::Unsupported, format!("the kernel lacks {what}")),
    };
    if !ring.params().is_feature_ext_arg() {
        return Err(missing("IORING_FEAT_EXT_ARG"));
    }
    if !ring.params().is_feature_nodrop() {
        return Err(missing("IORING_FEAT_NODROP"));
    }
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| Unavailable { step: "IORING_REGISTER_PROBE", error })?;
    match OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(missing(name)),
        None => Ok(()),
    }
}

/// A ring can do more than any filter of system calls sees. Ours can do what a link does, on the sockets it has.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let operations = OPERATIONS.iter().map(|(code, _)| Restriction::sqe_op(*code));
    let registers = REGISTERS.iter().map(|code| Restriction::register_op(*code as u8));
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
    let mut restrictions: Vec<Restriction> =
        operations.chain(registers).chain([Restriction::sqe_flags_allowed(flags.bits())]).collect();
    ring.submitter().register_restrictions(&mut restrictions)
}

const OPERATIONS: [(u8, &str); 6] = [
    (opcode::RecvMsgMulti::CODE, "IORING_OP_RECVMSG"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
];

/// What a restricted ring may still be told: to begin, to be found quickly, and to end.
const REGISTERS: [libc::c_uint; 6] =
    [UNREGISTER_FILES, ENABLE_RINGS, REGISTER_RING_FDS, UNREGISTER_RING_FDS, UNREGISTER_PBUF_RING, SYNC_CANCEL];
const UNREGISTER_FILES: libc::c_uint = 3;
const ENABLE_RINGS: libc::c_uint = 12;
const UNREGISTER_PBUF_RING: libc::c_uint = 23;
const SYNC_CANCEL: libc::c_uint = 24;
