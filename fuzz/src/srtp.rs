//! SRTP under fixed keys: what nobody sealed is never opened, and what was sealed is opened once, as it was.

use ringmain_dataplane::srtp::{Inbound, Outbound, Profile, split_keying_material};
use ringmain_shared::DropReason;
use ringmain_shared::limits::DATAGRAM_SIZE_MAX;
use ringmain_shared::transport::DtlsRole;

use crate::input::Input;

/// The first byte names the profile. Then the input is taken for protected packets, for a clear packet to be protected, and
/// for a protected packet that was bent on its way.
pub fn srtp(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let profile = Profile::ALL[usize::from(which) % Profile::ALL.len()];
    strangers_are_not_believed(profile, rest);
    if which & 0x80 == 0 {
        rtp_goes_there_and_back(profile, rest);
    } else {
        rtcp_goes_there_and_back(profile, rest);
    }
}

/// A sender's end and the receiver's.
pub(crate) fn pair(profile: Profile) -> (Outbound, Inbound) {
    let (_, outbound) = split_keying_material(profile, &material(profile), DtlsRole::Client).expect("right length");
    let (inbound, _) = split_keying_material(profile, &material(profile), DtlsRole::Server).expect("right length");
    (Outbound::new(outbound), Inbound::new(inbound))
}

/// What DTLS would have exported.
pub(crate) fn material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_len() as u8).map(|byte| byte ^ 0x5a).collect()
}

fn strangers_are_not_believed(profile: Profile, data: &[u8]) {
    let (_, mut inbound) = pair(profile);
    let mut copy = data.to_vec();
    assert!(inbound.unprotect_rtp(&mut copy).is_err(), "RTP that nobody sealed was opened");
    let mut copy = data.to_vec();
    assert!(inbound.unprotect_rtcp(&mut copy).is_err(), "RTCP that nobody sealed was opened");
}

fn rtp_goes_there_and_back(profile: Profile, data: &[u8]) {
    let (outbound, mut inbound) = pair(profile);
    let mut input = Input::new(data);
    let (rollover, bend_at, bend) = (u64::from(input.u8() % 2), usize::from(input.u16()), input.u8());
    let clear = input.take(DATAGRAM_SIZE_MAX - Profile::RTP_OVERHEAD_MAX);
    let Ok(header) = ringmain_dataplane::packet::rtp::RtpHeader::parse(clear) else { return };
    // A receiver that heard nothing yet can guess one rollover, and only of a number in the lower half.
    let rollover = if header.sequence < 0x8000 { rollover } else { 0 };
    let index = rollover << 16 | u64::from(header.sequence);
    let mut packet = clear.to_vec();
    packet.resize(clear.len() + Profile::RTP_OVERHEAD_MAX, 0);
    let total = outbound.protect_rtp(index, &mut packet, header.header_len, clear.len()).expect("there is room");
    assert_eq!(total, clear.len() + profile.rtp_overhead());
    packet.truncate(total);
    assert_eq!(packet[..header.header_len], clear[..header.header_len], "the header stays clear");

    if bend != 0 {
        let mut bent = packet.clone();
        bent[bend_at % total] ^= bend;
        assert!(inbound.unprotect_rtp(&mut bent).is_err(), "bent at {}", bend_at % total);
    }
    let mut short = packet[..total - 1].to_vec();
    assert!(inbound.unprotect_rtp(&mut short).is_err(), "the last byte was missing");

    let mut copy = packet.clone();
    let opened = inbound.unprotect_rtp(&mut copy).expect("it was sealed for us");
    assert_eq!(opened.bytes(), clear);
    assert_eq!((opened.describe().index(), opened.header().len()), (index, header.header_len));
    assert_eq!(inbound.unprotect_rtp(&mut packet).err(), Some(DropReason::Replayed));
}

fn rtcp_goes_there_and_back(profile: Profile, data: &[u8]) {
    let (mut outbound, mut inbound) = pair(profile);
    let mut input = Input::new(data);
    let (bend_at, bend) = (usize::from(input.u16()), input.u8());
    let clear = input.take(DATAGRAM_SIZE_MAX - Profile::RTCP_OVERHEAD_MAX);
    let mut packet = clear.to_vec();
    packet.resize(clear.len() + Profile::RTCP_OVERHEAD_MAX, 0);
    let Ok(total) = outbound.protect_rtcp(&mut packet, clear.len()) else {
        assert!(clear.len() < 8, "only what has no header is refused");
        return;
    };
    packet.truncate(total);
    if clear[0] >> 6 != 2 {
        assert_eq!(inbound.unprotect_rtcp(&mut packet).err(), Some(DropReason::RtcpMalformed));
        return;
    }
    if bend != 0 {
        let mut bent = packet.clone();
        bent[bend_at % total] ^= bend;
        assert!(inbound.unprotect_rtcp(&mut bent).is_err(), "bent at {}", bend_at % total);
    }
    let mut copy = packet.clone();
    assert_eq!(inbound.unprotect_rtcp(&mut copy).expect("it was sealed for us").bytes(), clear);
    assert_eq!(inbound.unprotect_rtcp(&mut packet).err(), Some(DropReason::Replayed));
}
