//! A TLS certificate in PEM files that are replaced now and then, as tools that renew certificates do.
//!
//! The files are looked at when a client comes, but not at each. New ones that cannot be used are reported once, and the old ones stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain and its key, read again when their files have changed.
#[derive(Debug)]
pub struct CertificateFiles {
    interval: Duration,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    pair: Arc<CertifiedKey>,
    files: Watched,
    looked: Instant,
}

/// Tells one state of the files from the next: when each was written, and its size.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl CertificateFiles {
    /// Reads the files, which are looked at again at most this often. The error says what is wrong with them.
    pub fn open(certificate: &Path, key: &Path, interval: Duration) -> Result<Self, String> {
        let files = Watched::new(certificate, key);
        let pair = Arc::new(read(certificate, key)?);
        Ok(Self { interval, present: Mutex::new(Present { pair, files, looked: Instant::now() }) })
    }

    /// The present pair.
    pub fn pair(&self) -> Arc<CertifiedKey> {
        let mut present = self.lock();
        if present.looked.elapsed() >= self.interval {
            present.looked = Instant::now();
            if present.files.has_changed() {
                present.read_again();
            }
        }
        present.pair.clone()
    }

    /// Reads the files now, as an operator wishes who has replaced them.
    pub fn read_again(&self) {
        let mut present = self.lock();
        present.files.has_changed();
        present.read_again();
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        // Nothing that holds it can leave it half changed.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn read_again(&mut self) {
        let [certificate, key] = &self.files.paths;
        match read(certificate, key) {
            Ok(pair) => {
                tracing::info!("the TLS certificate in {} was read anew", certificate.display());
                self.pair = Arc::new(pair);
            }
            Err(error) => tracing::warn!("the old TLS certificate stays in use: {error}"),
        }
    }
}

/// Whether two files have changed since it was last asked.
#[derive(Debug)]
pub(super) struct Watched {
    paths: [PathBuf; 2],
    stamp: Stamp,
}

impl Watched {
    pub(super) fn new(certificate: &Path, key: &Path) -> Self {
        Self { stamp: stamp(certificate, key), paths: [certificate.into(), key.into()] }
    }

    pub(super) fn has_changed(&mut self) -> bool {
        let [certificate, key] = &self.paths;
        let stamp = stamp(certificate, key);
        std::mem::replace(&mut self.stamp, stamp) != stamp
    }

    /// What they hold.
    pub(super) fn read(&self) -> Result<[Vec<u8>; 2], String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let [certificate, key] = &self.paths;
        Ok([read(certificate)?, read(key)?])
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair())
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("cannot read certificates from {}: {error}", certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {}", certificate.display()));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("cannot read a private key from {}: {error}", key.display()))?;
    let signer = any_supported_type(&private).map_err(|error| format!("{} cannot be used: {error}", key.display()))?;
    let pair = CertifiedKey::new(chain, signer);
    pair.keys_match()
        .map_err(|error| format!("{} and {} do not belong together: {error}", certificate.display(), key.display()))?;
    Ok(pair)
}
