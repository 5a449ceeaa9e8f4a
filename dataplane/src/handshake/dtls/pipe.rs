//! What OpenSSL takes for a socket: one datagram in, a flight of them out, all in memory. Shared by the engine of media's
//! handshakes and by TURN's sessions over DTLS; it knows nothing of either.

use std::io::{self, Read, Write};

use openssl::ssl::{Error, ErrorCode};

/// Datagrams of type `D`, of which those beyond `FLIGHT_MAX` are lost until the owner takes the others out.
#[derive(Debug)]
pub(crate) struct Pipe<D, const FLIGHT_MAX: usize> {
    pub(crate) incoming: Option<Box<[u8]>>,
    pub(crate) outgoing: Vec<D>,
}

impl<D, const FLIGHT_MAX: usize> Default for Pipe<D, FLIGHT_MAX> {
    fn default() -> Self {
        Self { incoming: None, outgoing: Vec::new() }
    }
}

impl<D, const FLIGHT_MAX: usize> Read for Pipe<D, FLIGHT_MAX> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        let size = datagram.len().min(buffer.len());
        buffer[..size].copy_from_slice(&datagram[..size]);
        Ok(size)
    }
}

impl<D: for<'a> TryFrom<&'a [u8]>, const FLIGHT_MAX: usize> Write for Pipe<D, FLIGHT_MAX> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Datagrams may be lost, so one over the bounds is.
        if let Ok(datagram) = D::try_from(bytes)
            && self.outgoing.len() < FLIGHT_MAX
        {
            self.outgoing.push(datagram);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether OpenSSL only waits for the next datagram.
pub(crate) fn is_patient(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE)
}
