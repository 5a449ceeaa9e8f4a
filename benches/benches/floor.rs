//! The floor under a forwarded packet, train by train: what the kernel takes to send it, and with the cipher that seals it. Everything
//! that a server adds is above this. See [`ringmain_benches::floor`] and, for where the datagrams go, [`ringmain_benches::wire`].

#![allow(missing_docs)]

use ringmain_benches::floor::{Carrier, Floor, seal};
use ringmain_benches::measure::{Args, Rounds, cpu_of, pin, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_benches::wire::{Wire, in_own_network, socket};

const TRAINS: [usize; 4] = [1, 3, 8, 16];
const SIZES: [usize; 3] = [100, 500, 1200];
/// Datagrams of one round.
const DATAGRAMS: usize = 48 * 16;

fn main() {
    let args = Args::read();
    let mut report = Report::new("floor", &args);
    pin(0);
    ciphers(&args, &mut report);
    measure(&args, &mut report, Wire::loopback());
    let veth = in_own_network(|| Wire::cable(0).map(|wire| measure(&args, &mut report, wire)));
    if let Err(reason) = veth.and_then(|result| result) {
        report.skip(format!("veth into XDP: {reason}"));
    }
    report.finish();
}

fn ciphers(args: &Args, report: &mut Report) {
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_128_GCM, &[7; 16]).expect("16 bytes");
    let key = aws_lc_rs::aead::LessSafeKey::new(key);
    for size in SIZES {
        let (mut bytes, mut rounds) = (vec![0; size], Rounds::default());
        for _ in 0..args.pick(1, 20, 100) {
            let spent = cpu_of(|| (0..DATAGRAMS as u64).for_each(|number| seal(&key, number, &mut bytes)));
            rounds.push(spent.as_nanos() as f64 / DATAGRAMS as f64);
        }
        report.row(Row::new(format!("seal {size} B"), rounds.median(), "ns"));
    }
}

/// One contender: who carries, how long the trains are, and whether they are sealed.
struct Contender {
    carrier: Carrier,
    train: usize,
    sealed: bool,
    floor: Floor,
}

fn measure(args: &Args, report: &mut Report, mut wire: Wire) {
    for size in SIZES {
        let (mut contenders, mut refused) = (Vec::new(), None);
        for carrier in Carrier::ALL {
            for (train, sealed) in TRAINS.into_iter().flat_map(|train| [(train, false), (train, true)]) {
                let remotes = wire.remotes(DATAGRAMS / train);
                match Floor::new(carrier, socket(), &remotes, train, size, sealed) {
                    Ok(floor) => contenders.push(Contender { carrier, train, sealed, floor }),
                    Err(reason) => refused = Some(reason),
                }
            }
        }
        if let Some(reason) = refused {
            report.skip(reason);
        }
        let before = wire.arrived();
        let rounds = args.pick(1, 20, 100);
        let results = take_turns(&mut contenders, rounds, |contender| {
            contender.floor.send().as_nanos() as f64 / contender.floor.datagrams() as f64
        });
        let sent: usize = contenders.iter().map(|contender| contender.floor.datagrams() * rounds).sum();
        if let (Some(before), Some(after)) = (before, wire.arrived()) {
            assert!(after - before >= sent as u64 * 99 / 100, "{} of {sent} datagrams arrived", after - before);
        }
        let single = |carrier| {
            let index = contenders.iter().position(|c| c.carrier == carrier && c.train == 1 && !c.sealed);
            index.map(|index| &results[index])
        };
        for (contender, result) in contenders.iter().zip(&results) {
            let Contender { carrier, train, sealed, .. } = contender;
            let what = if *sealed { "seal and send" } else { "send" };
            let name = format!("{what}, {size} B, trains of {train}, {}, {}", carrier.name(), wire.name());
            let row = Row::new(name, result.median(), "ns");
            report.row(match single(*carrier) {
                Some(single) if !sealed && *train > 1 => {
                    row.beside_by("one by one", single.median(), result.ratio(single))
                }
                _ => row,
            });
        }
    }
}
