//! Who a peer is to ICE and DTLS: user fragment, password, certificate fingerprints, and its part in the handshake
//! (RFC 8839 §5.4, RFC 8122, RFC 8842).

use sdp::description::common::Attribute;

use ringmain_shared::transport::{DtlsRole, Fingerprint, FingerprintHash, IceCredentials};

/// Fingerprints that one description may name.
const FINGERPRINTS_MAX: usize = 8;

/// The transport attributes of an m-section, or of the session. Cannot be printed: the password is a secret.
#[derive(Clone, Default)]
pub(super) struct Identity {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    /// Of the hashes that we accept.
    pub fingerprints: Vec<Fingerprint>,
    pub setup: Option<Setup>,
}

/// `a=setup` (RFC 4145 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setup {
    Active,
    Passive,
    Actpass,
    Holdconn,
}

impl Identity {
    /// Reads what is there; an error names the attribute that is malformed.
    pub(super) fn parse(attributes: &[Attribute]) -> Result<Self, &'static str> {
        let mut identity = Identity::default();
        for attribute in attributes {
            let value = attribute.value.as_deref().unwrap_or_default();
            match attribute.key.as_str() {
                "ice-ufrag" if identity.ufrag.is_none() => {
                    identity.ufrag =
                        Some(ice_chars(value, 4).ok_or("a=ice-ufrag must be 4 to 256 ice-chars (RFC 8839)")?);
                }
                "ice-pwd" if identity.pwd.is_none() => {
                    identity.pwd =
                        Some(ice_chars(value, 22).ok_or("a=ice-pwd must be 22 to 256 ice-chars (RFC 8839)")?);
                }
                "fingerprint" => identity.add_fingerprint(value)?,
                "setup" if identity.setup.is_none() => {
                    identity.setup = Some(match value {
                        "active" => Setup::Active,
                        "passive" => Setup::Passive,
                        "actpass" => Setup::Actpass,
                        "holdconn" => Setup::Holdconn,
                        _ => return Err("a=setup must be active, passive or actpass"),
                    });
                }
                _ => {}
            }
        }
        Ok(identity)
    }

    /// The same, completed by what `outer` says; RFC 8122 §5: fingerprints of a section replace those of the session.
    pub(super) fn or(mut self, outer: &Identity) -> Self {
        if self.ufrag.is_none() && self.pwd.is_none() {
            self.ufrag.clone_from(&outer.ufrag);
            self.pwd.clone_from(&outer.pwd);
        }
        if self.fingerprints.is_empty() {
            self.fingerprints.clone_from(&outer.fingerprints);
        }
        self.setup = self.setup.or(outer.setup);
        self
    }

    /// The ICE credentials, if both halves are there.
    pub(super) fn ice(&self) -> Result<IceCredentials, &'static str> {
        match (&self.ufrag, &self.pwd) {
            (Some(ufrag), Some(pwd)) => Ok(IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() }),
            _ => Err("has no a=ice-ufrag and a=ice-pwd"),
        }
    }

    /// The fingerprints, at least one.
    pub(super) fn fingerprints(&self) -> Result<Vec<Fingerprint>, &'static str> {
        match self.fingerprints.is_empty() {
            true => Err("has no a=fingerprint of sha-256, sha-384 or sha-512: weaker hashes are not accepted"),
            false => Ok(self.fingerprints.clone()),
        }
    }

    fn add_fingerprint(&mut self, value: &str) -> Result<(), &'static str> {
        let (name, digest) = value.split_once(' ').ok_or("a=fingerprint is not `<hash> <digest>`")?;
        let (hash, size) = match name.to_ascii_lowercase().as_str() {
            "sha-256" => (FingerprintHash::Sha256, 32),
            "sha-384" => (FingerprintHash::Sha384, 48),
            "sha-512" => (FingerprintHash::Sha512, 64),
            // RFC 8122 §5: unknown functions are passed over; md5 and sha-1 must not be trusted.
            _ => return Ok(()),
        };
        let value: Option<Vec<u8>> = digest.trim().split(':').map(hex_byte).collect();
        let value = value.filter(|value| value.len() == size).ok_or("a=fingerprint has a malformed digest")?;
        if self.fingerprints.len() == FINGERPRINTS_MAX {
            return Err("more than 8 lines of a=fingerprint");
        }
        self.fingerprints.push(Fingerprint { hash, value });
        Ok(())
    }
}

/// Our part against an offer's `a=setup` (RFC 8842 §5.3). Passive where we may choose: a server need not know when the
/// peer's NAT lets a ClientHello through. `before` is our part so far, kept where the peer leaves the choice to us.
pub(super) fn role_against_offer(setup: Option<Setup>, before: Option<DtlsRole>) -> Result<DtlsRole, &'static str> {
    match setup.unwrap_or(Setup::Actpass) {
        Setup::Actpass => Ok(before.unwrap_or(DtlsRole::Server)),
        Setup::Active => Ok(DtlsRole::Server),
        Setup::Passive => Ok(DtlsRole::Client),
        Setup::Holdconn => Err("a=setup:holdconn: offer actpass"),
    }
}

/// Our part as an answer to our `actpass` leaves it. RFC 4145 §4: an answer without `a=setup` is active.
pub(super) fn role_after_answer(setup: Option<Setup>) -> Result<DtlsRole, &'static str> {
    match setup.unwrap_or(Setup::Active) {
        Setup::Active => Ok(DtlsRole::Server),
        Setup::Passive => Ok(DtlsRole::Client),
        Setup::Actpass | Setup::Holdconn => Err("a=setup of an answer must be active or passive"),
    }
}

fn ice_chars(value: &str, size_min: usize) -> Option<String> {
    let fits = (size_min..=256).contains(&value.len());
    let clean = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    (fits && clean).then(|| value.to_owned())
}

fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}
