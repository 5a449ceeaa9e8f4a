//! A certificate in PEM files that are replaced now and then, as tools that renew certificates do; for TLS and for DTLS.
//!
//! The files are looked at when a client comes, but not at each. New ones that cannot be used are reported once, and the old ones stay.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::stream::dtls::Context;

/// For TLS.
pub type CertificateFiles = Renewed<CertifiedKey>;
/// For DTLS.
pub type DtlsCertificateFiles = Renewed<Context>;

/// What a certificate chain and its key are made into, made again when their files have changed.
#[derive(Debug)]
pub struct Renewed<T> {
    interval: Duration,
    present: Mutex<Present<T>>,
}

/// What is made of a certificate chain and its key.
pub trait FromFiles: Sized {
    /// What it is for, as operators know it.
    const PROTOCOL: &str;

    /// Reads both files. The error says what is wrong with them.
    fn read(certificate: &Path, key: &Path) -> Result<Self, String>;
}

#[derive(Debug)]
struct Present<T> {
    made: Arc<T>,
    files: Watched,
    looked: Instant,
}

/// Tells one state of the files from the next: which file each is, and when anything about it changed, in seconds and nanoseconds. The
/// time of its last change is no copy's or archive's to set, as that of the last write is.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

impl<T: FromFiles> Renewed<T> {
    /// Reads the files, which are looked at again at most this often. The error says what is wrong with them.
    pub fn open(certificate: &Path, key: &Path, interval: Duration) -> Result<Self, String> {
        let files = Watched::new(certificate, key);
        let made = Arc::new(T::read(certificate, key)?);
        Ok(Self { interval, present: Mutex::new(Present { made, files, looked: Instant::now() }) })
    }

    /// What was made of them last.
    pub fn present(&self) -> Arc<T> {
        let mut present = self.lock();
        if present.looked.elapsed() >= self.interval {
            present.looked = Instant::now();
            if present.files.has_changed() {
                present.read_again(false);
            }
        }
        present.made.clone()
    }

    /// Reads the files now, as an operator wishes who has replaced them.
    pub fn read_again(&self) {
        self.lock().read_again(true);
    }

    fn lock(&self) -> MutexGuard<'_, Present<T>> {
        // Nothing that holds it can leave it half changed.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: FromFiles> Present<T> {
    fn read_again(&mut self, asked: bool) {
        match self.files.read(T::read) {
            Ok(made) => {
                tracing::info!("the {} certificate in {} was read anew", T::PROTOCOL, self.files.paths[0].display());
                self.made = Arc::new(made);
            }
            Err((error, is_new)) if asked || is_new => {
                tracing::warn!("the old {} certificate stays in use: {error}", T::PROTOCOL);
            }
            Err(_) => {}
        }
    }
}

/// Whether two files have changed since they were last read with success.
#[derive(Debug)]
struct Watched {
    paths: [PathBuf; 2],
    stamp: Stamp,
    /// What could not be read, as it was.
    failed: Option<Stamp>,
}

impl Watched {
    fn new(certificate: &Path, key: &Path) -> Self {
        Self { stamp: stamp(certificate, key), paths: [certificate.into(), key.into()], failed: None }
    }

    fn has_changed(&self) -> bool {
        let [certificate, key] = &self.paths;
        stamp(certificate, key) != self.stamp
    }

    /// Reads them. What fails has changed for as long as it does; besides the error, whether these files fail for the first time.
    fn read<T>(&mut self, read: impl FnOnce(&Path, &Path) -> Result<T, String>) -> Result<T, (String, bool)> {
        let [certificate, key] = &self.paths;
        // Before they are read: what is written meanwhile is found the next time.
        let stamp = stamp(certificate, key);
        match read(certificate, key) {
            Ok(content) => {
                (self.stamp, self.failed) = (stamp, None);
                Ok(content)
            }
            Err(error) => Err((error, self.failed.replace(stamp) != Some(stamp))),
        }
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present())
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    })
}

impl FromFiles for CertifiedKey {
    const PROTOCOL: &str = "TLS";

    fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("cannot read certificates from {}: {error}", certificate.display()))?;
        if chain.is_empty() {
            return Err(format!("there is no certificate in {}", certificate.display()));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| format!("cannot read a private key from {}: {error}", key.display()))?;
        let signer =
            any_supported_type(&private).map_err(|error| format!("{} cannot be used: {error}", key.display()))?;
        let pair = CertifiedKey::new(chain, signer);
        pair.keys_match().map_err(|error| {
            format!("{} and {} do not belong together: {error}", certificate.display(), key.display())
        })?;
        Ok(pair)
    }
}

impl FromFiles for Context {
    const PROTOCOL: &str = "DTLS";

    fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        Self::from_pem(&read(certificate)?, &read(key)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes, write};

    use super::*;

    #[test]
    fn files_have_changed_until_they_are_read_with_success() {
        let dir = std::env::temp_dir().join(format!("ringmain-watched-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        write(&certificate, "one").expect("a file");
        write(&key, "one").expect("a file");
        let mut files = Watched::new(&certificate, &key);
        assert!(!files.has_changed());
        std::fs::remove_file(&key).expect("it is there");
        let failed = |_: &Path, _: &Path| Err::<(), _>("none".to_string());
        for is_new in [true, false] {
            assert!(files.has_changed());
            assert_eq!(files.read(failed), Err(("none".to_string(), is_new)));
        }
        let both = |one: &Path, other: &Path| Ok([one, other].map(|path| std::fs::read(path).expect("a file")));
        write(&key, "two").expect("a file");
        assert!(files.has_changed());
        assert_eq!(files.read(both), Ok([b"one".to_vec(), b"two".to_vec()]));
        assert!(!files.has_changed());
        // As long as before, and as old by its own account.
        let before = key.metadata().and_then(|it| it.modified()).expect("it is there");
        std::thread::sleep(Duration::from_millis(20));
        write(&key, "six").expect("a file");
        let times = FileTimes::new().set_modified(before);
        File::options().write(true).open(&key).and_then(|file| file.set_times(times)).expect("ours");
        assert!(files.has_changed());
        std::fs::remove_dir_all(&dir).expect("ours");
    }
}
