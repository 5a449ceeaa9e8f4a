//! The far end of a cable: ten instructions in the driver that count a packet and drop it, loaded and attached by `bpf(2)`.
//!
//! Written by hand, so that the benches need no compiler for it and no library. Program, map and attachment live as long as their
//! descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Counts what comes to a device, and drops it.
pub struct Counter {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Counter {
    /// Puts it before a device of this thread's namespace.
    pub fn attach(device: &str) -> Result<Self, String> {
        let refused = |step: &'static str| move |error: io::Error| format!("no XDP sink: {step}: {error}");
        let name = CString::new(device).map_err(|_| "a device's name has no zero in it")?;
        // SAFETY: the name lives through the call and ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(refused("if_nametoindex")(io::Error::last_os_error()));
        }
        let sizes = MapCreate { map_type: ARRAY, key_size: 4, value_size: 8, max_entries: 1, map_flags: 0 };
        let map = open(MAP_CREATE, &sizes).map_err(refused("a map"))?;
        let program = program(map.as_raw_fd());
        let load = ProgramLoad {
            program_type: PROGRAM_TYPE_XDP,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            ..ProgramLoad::default()
        };
        let program = open(PROGRAM_LOAD, &load).map_err(refused("the program"))?;
        let create = LinkCreate {
            program: program.as_raw_fd() as u32,
            device: index,
            attach_type: ATTACH_XDP,
            flags: IN_THE_DRIVER,
        };
        let link = open(LINK_CREATE, &create).map_err(refused("its attachment"))?;
        Ok(Self { map, _link: link })
    }

    /// Packets so far.
    pub fn read(&self) -> u64 {
        let (key, mut value) = (0u32, 0u64);
        let look = MapLookup {
            map: self.map.as_raw_fd() as u32,
            padding: 0,
            key: &raw const key as u64,
            value: &raw mut value as u64,
            flags: 0,
        };
        bpf(MAP_LOOKUP, &look).expect("the map has this key");
        value
    }
}

/// Moves this thread to a network namespace of its own.
pub fn leave_network() -> io::Result<()> {
    // SAFETY: changes what this thread sees of the network, and no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As the kernel's `struct bpf_insn` has it: operation, destination, source, offset, immediate value.
fn program(map: i32) -> [u64; 11] {
    let code = |operation: u8, to: u8, from: u8, offset: i16, value: i32| {
        u64::from(operation)
            | u64::from(to | from << 4) << 8
            | u64::from(offset as u16) << 16
            | u64::from(value as u32) << 32
    };
    [
        code(0x62, 10, 0, -4, 0),                     // *(u32 *)(r10 - 4) = 0: the key
        code(0x18, 1, PSEUDO_MAP_DESCRIPTOR, 0, map), // r1 = map, in two parts
        0,
        code(0xbf, 2, 10, 0, 0),     // r2 = r10
        code(0x07, 2, 0, 0, -4),     // r2 -= 4
        code(0x85, 0, 0, 0, LOOKUP), // r0 = map_lookup_elem(r1, r2)
        code(0x15, 0, 0, 2, 0),      // if r0 == 0 skip two
        code(0xb7, 1, 0, 0, 1),      // r1 = 1
        code(0xdb, 0, 1, 0, 0),      // atomic *(u64 *)r0 += r1
        code(0xb7, 0, 0, 0, DROP),   // r0 = XDP_DROP
        code(0x95, 0, 0, 0, 0),      // return r0
    ]
}

/// A `bpf` call whose answer is a descriptor.
fn open<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attributes)?;
    // SAFETY: these commands give a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes of the attributes as it is told there are; the callers' pointers in them lead to memory
    // that lives through the call and is as large as the command takes it to be.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The parts of `union bpf_attr` for each command, as `linux/bpf.h` has them.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapLookup {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    device: u32,
    attach_type: u32,
    flags: u32,
}

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const ARRAY: u32 = 2;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`.
const IN_THE_DRIVER: u32 = 4;
const PSEUDO_MAP_DESCRIPTOR: u8 = 1;
const LOOKUP: i32 = 1;
/// `XDP_DROP`.
const DROP: i32 = 1;
