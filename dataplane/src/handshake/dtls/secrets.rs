//! The traffic secrets of a DTLS 1.3 handshake (RFC 8446 §7.1), overheard while `dimpl` derives them: all of its key schedule goes through
//! an HMAC that its user may bring. It gives away no secret itself, and what goes on where it stops ([`established`](super::established))
//! needs three of them. Nothing is overheard but while [`overhear`] runs, by its own thread.

use std::cell::RefCell;

use dimpl::CryptoError;
use dimpl::crypto::{CryptoProvider, HashAlgorithm, HmacProvider, aws_lc_rs as backend};

use super::established::APPLICATION_EPOCH;
use super::records::Suite;
use super::records13::{Epoch, HASH_SIZE_MAX, Secret};
use super::signing;

/// What one association needs after its handshake.
pub struct Secrets {
    /// Seals its records.
    pub suite: Suite,
    /// Of epoch 2, in which a client repeats the end of its handshake.
    pub client_handshake: Secret,
    /// Of epoch 3.
    pub client: Secret,
    /// Of epoch 3.
    pub server: Secret,
}

/// What was heard so far.
#[derive(Default)]
pub(super) struct Overheard {
    suite: Option<Suite>,
    client_handshake: Option<Secret>,
    client: Option<Secret>,
    server: Option<Secret>,
}

impl Overheard {
    /// Whether the keys of epoch 3 are known: its records can wait for them.
    pub(super) fn is_complete(&self) -> bool {
        self.suite.is_some() && self.client_handshake.is_some() && self.client.is_some() && self.server.is_some()
    }

    /// What the client writes in epoch 3, once everything is known.
    pub(super) fn client(&self) -> Option<Epoch> {
        let (suite, client) = (self.suite?, self.client.as_ref()?);
        self.is_complete().then(|| Epoch::new(suite, APPLICATION_EPOCH, &**client))?
    }

    pub(super) fn into_secrets(self) -> Option<Secrets> {
        Some(Secrets {
            suite: self.suite?,
            client_handshake: self.client_handshake?,
            client: self.client?,
            server: self.server?,
        })
    }

    /// `input`: an HkdfLabel and the number of its block (RFC 8446 §7.1, RFC 5869 §2.3); `output`: that block, and the first is all there is.
    /// What is not such an input to its last byte, whoever chose its bytes, is something else.
    fn hear(&mut self, hash: HashAlgorithm, input: &[u8], output: &[u8]) {
        let Some(Label { size, name, context_size }) = Label::of(input).filter(|_| !self.is_complete()) else { return };
        let is_secret = (size, context_size) == (output.len(), output.len());
        let secret = || {
            let mut secret = Secret::new([0; HASH_SIZE_MAX]);
            secret.get_mut(..output.len())?.copy_from_slice(output);
            Some(secret)
        };
        match name {
            b"c hs traffic" if is_secret => self.client_handshake = secret(),
            b"c ap traffic" if is_secret => self.client = secret(),
            b"s ap traffic" if is_secret => self.server = secret(),
            // The two suites of SHA-256 differ in the size of their keys.
            b"key" if context_size == 0 => {
                self.suite = match (hash, size) {
                    (HashAlgorithm::SHA384, 32) => Some(Suite::Aes256Gcm),
                    (HashAlgorithm::SHA256, 16) => Some(Suite::Aes128Gcm),
                    (HashAlgorithm::SHA256, 32) => Some(Suite::ChaCha20Poly1305),
                    _ => None,
                };
            }
            _ => {}
        }
    }
}

/// What an output is for.
struct Label<'a> {
    size: usize,
    /// Without what all begin with.
    name: &'a [u8],
    context_size: usize,
}

impl<'a> Label<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let (&[high, low, label_size], rest) = input.split_first_chunk()?;
        let (label, rest) = rest.split_at_checked(label_size.into())?;
        let (&context_size, rest) = rest.split_first()?;
        let (_, &[1]) = rest.split_at_checked(context_size.into())? else { return None };
        let name = label.strip_prefix(PREFIX)?;
        Some(Self { size: u16::from_be_bytes([high, low]).into(), name, context_size: context_size.into() })
    }
}

/// Runs `act`, and adds the secrets that it derives to `overheard`.
pub(super) fn overhear<T>(overheard: &mut Overheard, act: impl FnOnce() -> T) -> T {
    let outer = LISTENER.replace(Some(std::mem::take(overheard)));
    let result = act();
    *overheard = LISTENER.replace(outer).unwrap_or_default();
    result
}

/// `dimpl`'s cryptography, with an HMAC that can be overheard.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { hmac_provider: &Hmac, ..signing::provider() }
}

#[derive(Debug)]
struct Hmac;

impl HmacProvider for Hmac {
    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8], out: &mut [u8]) -> Result<usize, CryptoError> {
        let size = backend::default_provider().hmac_provider.hmac(hash, key, data, out)?;
        LISTENER.with_borrow_mut(|listener| {
            if let (Some(overheard), Some(output)) = (listener, out.get(..size)) {
                overheard.hear(hash, data, output);
            }
        });
        Ok(size)
    }
}

thread_local! {
    /// Whoever listens now.
    static LISTENER: RefCell<Option<Overheard>> = const { RefCell::new(None) };
}

/// RFC 9147 §5.9, where RFC 8446 has `tls13` and a space.
pub(super) const PREFIX: &[u8] = b"dtls13";
