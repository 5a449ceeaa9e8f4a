//! The log file. A rotation moves it away and says SIGHUP: then it is opened anew, and lines go on in the new one. Where that fails,
//! they go on in the old one, so that none is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

/// A file that lines are added to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    /// Opens it, and makes it if it is not there.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { path: path.into(), file: Mutex::new(append_to(path)?) }))
    }

    /// Closes it and opens what has its name now.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        *self.present() = file;
        Ok(())
    }

    /// Opens it anew at every SIGHUP. Runs for ever.
    pub async fn follow_hangups(self: Arc<Self>) -> io::Result<()> {
        let mut hangups = signal(SignalKind::hangup())?;
        while hangups.recv().await.is_some() {
            match self.reopen() {
                Ok(()) => tracing::info!("log file opened anew"),
                Err(error) => {
                    tracing::error!(
                        "log lines stay in the old file, {} cannot be opened: {error}",
                        self.path.display()
                    );
                }
            }
        }
        Ok(())
    }

    /// Whoever panicked while writing has left whole bytes behind.
    fn present(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.present().write(bytes)
    }

    /// A line is not cut by a rotation.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.present().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.present().flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_in_the_new_file_and_in_the_old_one_where_there_can_be_none() {
        let dir = std::env::temp_dir().join(format!("ringmain-log-{}", std::process::id()));
        let (path, rotated, away) = (dir.join("log/now"), dir.join("log/before"), dir.join("away"));
        std::fs::create_dir_all(dir.join("log")).expect("a directory");
        let log = LogFile::open(&path).expect("a file");
        let write = |line: &str| (&mut &*log).write_all(line.as_bytes()).expect("room");
        write("one\n");
        std::fs::rename(&path, &rotated).expect("ours");
        write("two\n");
        log.reopen().expect("a file");
        write("three\n");
        std::fs::rename(dir.join("log"), &away).expect("ours");
        assert!(log.reopen().is_err());
        write("four\n");
        let read = |name: &str| std::fs::read_to_string(away.join(name)).expect("a file");
        assert_eq!((read("before"), read("now")), ("one\ntwo\n".into(), "three\nfour\n".into()));
        std::fs::remove_dir_all(&dir).expect("ours");
    }
}
