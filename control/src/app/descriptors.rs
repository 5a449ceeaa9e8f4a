//! How many files the process may have open: each signalling connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit, which is 1024 on most systems for the sake of programs that use `select`, to the hard one. Says what
/// to do where that is less than `wanted`.
pub(super) fn raise(wanted: u64) -> Option<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if raised { hard } else { soft };
    (limit < wanted).then(|| {
        format!(
            "this process may open {limit} files, too few for limits.connections: raise `ulimit -n` or LimitNOFILE to \
             {wanted}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_too_little_is_said() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").1;
        assert_eq!(raise(1), None);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (hard, hard));
        assert!(hard == u64::MAX || raise(hard + 1).is_some_and(|hint| hint.contains("LimitNOFILE")));
    }
}
