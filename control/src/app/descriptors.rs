//! How many files the process may have open: each signalling connection is one, and so are TURN's connections and relay sockets.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use ringmain_dataplane::plane::StreamLimits;

use crate::config::{Config, TurnPeers};

/// As many as the settings allow to be opened.
pub(super) fn wanted(config: &Config) -> u64 {
    let turn = &config.turn;
    // A connection of the page that comes by way of the data plane is three: the client's, and the two ends of the handover. Where
    // TURN has ports of its own, it has as many connections as signalling.
    let kinds = match config.one_port {
        Some(_) => 3,
        None => usize::from(!config.turn_only) + usize::from(turn.enabled),
    };
    // Our own media needs no relay socket.
    let has_foreign_peers = turn.peers == TurnPeers::Open || !turn.allow_peers.is_empty();
    let relays = match turn.shared_ports {
        _ if !turn.enabled || !has_foreign_peers => 0,
        0 => turn.max_port.saturating_sub(turn.min_port).into(),
        count => usize::from(count) * usize::from(config.media.workers.max(1)),
    };
    let peers = if turn.enabled && turn.tcp_relay { StreamLimits::default().peers_max } else { 0 };
    (kinds * config.limits.connections + relays + peers) as u64 + BESIDE
}

/// Raises the soft limit, which is 1024 on most systems for the sake of programs that use `select`, to the hard one. Says what
/// to do where that is less than `wanted`.
pub(super) fn raise(wanted: u64) -> Option<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if raised { hard } else { soft };
    (limit < wanted).then(|| {
        format!(
            "this process may open {limit} files, too few for the connections and relay ports that the settings allow: \
             raise `ulimit -n` or LimitNOFILE to {wanted}"
        )
    })
}

/// Media sockets, rings, the metrics listener.
const BESIDE: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_opened_is_counted_by_its_holders() {
        let mut config = Config::default();
        config.limits.connections = 100;
        (config.turn.min_port, config.turn.max_port) = (50_000, 60_000);
        assert_eq!(wanted(&config), 100 + BESIDE);
        config.turn.enabled = true;
        assert_eq!(wanted(&config), 200 + BESIDE);
        config.turn.peers = TurnPeers::Open;
        assert_eq!(wanted(&config), 10_200 + BESIDE);
        config.turn.tcp_relay = true;
        assert_eq!(wanted(&config), 10_200 + BESIDE + StreamLimits::default().peers_max as u64);
        config.turn.tcp_relay = false;
        config.turn_only = true;
        assert_eq!(wanted(&config), 10_100 + BESIDE);
        config.one_port = Some(443);
        assert_eq!(wanted(&config), 10_300 + BESIDE);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_too_little_is_said() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").1;
        assert_eq!(raise(1), None);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"), (hard, hard));
        assert!(hard == u64::MAX || raise(hard + 1).is_some_and(|hint| hint.contains("LimitNOFILE")));
    }
}
