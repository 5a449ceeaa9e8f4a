//! The load generator against descriptions of other servers.
