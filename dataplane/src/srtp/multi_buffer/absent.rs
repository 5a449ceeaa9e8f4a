//! The multi-buffer backend of a build without it: nothing here can be made, so all of its branches compile to nothing.

use super::cipher::{Nonce, Waiting};
use super::keys::SessionKey;

/// What is linked; nothing.
pub(crate) fn version() -> Option<&'static str> {
    None
}

/// Keys for a burst; never.
pub(crate) enum CmKey {}

impl CmKey {
    pub(in crate::srtp) fn new(_: &SessionKey) -> Option<Self> {
        None
    }
}

/// An AES-GCM key; never.
pub(crate) enum GcmKey {}

impl GcmKey {
    pub(in crate::srtp) fn new(_: &SessionKey) -> Option<Self> {
        None
    }

    pub(crate) fn seal(&self, _: u128, _: &[u8], _: &mut [u8], _: &mut [u8; 16]) {
        match *self {}
    }

    pub(crate) fn seal_from(&self, _: u128, _: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8; 16]) {
        match *self {}
    }
}

/// Gathers packets; never.
#[derive(Debug)]
pub(crate) enum Sealer {}

impl Sealer {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(crate) fn stage(&mut self, _: Waiting<'_>, _: Nonce, _: usize, _: usize) {
        match *self {}
    }

    pub(crate) fn unstage(&mut self) {
        match *self {}
    }

    pub(crate) fn commit(&mut self, _: usize) {
        match *self {}
    }

    pub(crate) fn is_empty(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(crate) fn clear(&mut self) {
        match *self {}
    }

    pub(crate) fn run(&mut self, _: &mut [u8]) {
        match *self {}
    }
}
