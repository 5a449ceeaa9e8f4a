//! The control side of TURN (RFC 8656): `spec` makes of the configuration what the data plane is told, `discovery` which of its
//! listeners answer for each other, `credential` makes passwords, `tokens` reads the keys of others who vouch for clients (RFC 7635),
//! `admin` is the operator's socket and `client` its other end. Nothing of it relays: that is `ringmain_dataplane::turn`.

mod admin;
mod client;
mod credential;
mod discovery;
mod spec;
mod tokens;
mod users;

pub use admin::{AdminAnswer, AdminQuestion, listen};
pub use client::{AdminOptions, ask};
pub use credential::{CREDENTIAL_LIFETIME_S, CredentialOptions, Handed, Offer, print_credential};
pub use discovery::{Obstacle, alternates};
pub use spec::{Listeners, certificate, listeners, offer, spec};
pub use users::{Usage, Users, warnings};
