//! What a relayed packet costs over sockets, beside a loop on the same link that only receives and sends. Every client and every peer sends
//! one datagram, and then the server takes them all in: no trains, which clients of TURN seldom form. Without a kernel it is measured by
//! `relay`, beside coturn and under a steady load by `turn`.

#![allow(missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain_benches::bare::Bare;
use ringmain_benches::floor::Carrier;
use ringmain_benches::measure::{Args, cpu_of, pin, take_turns};
use ringmain_benches::pairs::{Pairs, Speech};
use ringmain_benches::relay_server::RelayServer;
use ringmain_benches::report::{Report, Row};
use ringmain_dataplane::io::LinkChoice;

/// Clients, each with one peer.
const CLIENTS: usize = 100;

fn main() {
    let args = Args::read();
    let mut report = Report::new("relay_sockets", &args);
    pin(0);
    for carrier in Carrier::ALL.into_iter().filter(|carrier| args.wants(carrier.name())) {
        for (speech, name) in [(Speech::Channel, "ChannelData"), (Speech::Send, "Send")] {
            for size in [100, 1100] {
                let what = format!("{size} bytes, {name}, {}", carrier.name());
                if let Err(reason) = over_sockets(&args, &mut report, carrier, speech, size, &what) {
                    report.skip(format!("{what}: {reason}"));
                }
            }
        }
    }
    report.finish();
}

/// A worker that relays beside a bare loop on the same link.
fn over_sockets(
    args: &Args,
    report: &mut Report,
    carrier: Carrier,
    speech: Speech,
    size: usize,
    what: &str,
) -> Result<(), String> {
    let choice = if carrier == Carrier::IoUring { LinkChoice::IoUring } else { LinkChoice::Mmsg };
    let (mut bare, at) = Bare::open(choice, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let bare_pairs = Pairs::new(at, CLIENTS, Speech::Bare, size, &mut || _ = bare.turn(Duration::ZERO))?;
    let (mut server, at) = RelayServer::open(choice)?;
    let pairs = Pairs::new(at, CLIENTS, speech, size, &mut || _ = server.turn(Duration::ZERO))?;
    let mut contenders: [(Box<dyn FnMut() -> usize>, Pairs); 2] = [
        (Box::new(move || bare.turn(Duration::ZERO)), bare_pairs),
        (Box::new(move || server.turn(Duration::ZERO)), pairs),
    ];
    let results = take_turns(&mut contenders, args.pick(2, 200, 1_000), |(turn, pairs)| {
        let sent = pairs.send();
        let spent = cpu_of(|| {
            let mut missing = sent as usize;
            while missing > 0 {
                missing -= turn();
            }
            // io_uring sends in the turn after.
            turn();
        });
        assert_eq!(pairs.receive(), sent, "nothing is lost");
        spent.as_nanos() as f64 / sent as f64
    });
    let row = Row::new(what, results[1].median(), "ns");
    report.row(row.beside_by("a bare loop", results[0].median(), results[1].ratio(&results[0])).ratio_at_most(1.2));
    Ok(())
}
