//! Which threads come first where there are more of them than cores.

/// Lets threads that move packets go before the calling one, for as long as it lives. Where a core is shared, a worker that wakes
/// then has it at once, instead of after a handshake or two; where none is, nothing changes. Lowering oneself is always allowed.
pub fn give_way() {
    // SAFETY: no memory is involved. On Linux this is about the calling thread alone. It cannot fail: a thread may lower itself.
    unsafe { libc::nice(STEPS) };
}

/// Leaves it a tenth of the weight that it had.
const STEPS: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_gives_way_does() {
        let niceness = || {
            // SAFETY: no memory is involved.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = niceness();
        let after = std::thread::spawn(move || {
            give_way();
            niceness()
        });
        assert_eq!(after.join().expect("no panic"), (before + STEPS).min(19));
        assert_eq!(niceness(), before);
    }
}
