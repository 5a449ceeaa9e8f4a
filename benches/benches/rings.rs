//! The rings between threads: `rtrb`, which we use, beside crossbeam's queue and channel and the standard library's channel.
//!
//! Two sizes: a word, and a packet on its way to another worker. *Alone*: what one thread pays to put an item in and take it out, in
//! CPU time. *Between cores*: one thread fills, another empties, time that passes for each item; needs two quiet cores.

#![allow(missing_docs)]

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use ringmain_benches::measure::{Args, cores, cpu_of, pin, take_turns};
use ringmain_benches::report::{Report, Row};
use ringmain_shared::limits::{DATAGRAM_SIZE_MAX, RELAY_RING};

/// As much as a packet and what is said of it.
type Packet = [u8; DATAGRAM_SIZE_MAX + 100];

/// Both ends of a queue: one says whether there was room, the other whether there was something.
type Ends<T> = (Box<dyn FnMut(T) -> bool + Send>, Box<dyn FnMut() -> Option<T> + Send>);
type Kind<T> = (&'static str, fn() -> Ends<T>);

fn kinds<T: Send + 'static>() -> Vec<Kind<T>> {
    vec![
        ("rtrb", || {
            let (mut producer, mut consumer) = rtrb::RingBuffer::new(RELAY_RING);
            (Box::new(move |item| producer.push(item).is_ok()), Box::new(move || consumer.pop().ok()))
        }),
        ("crossbeam ArrayQueue", || {
            let queue = Arc::new(ArrayQueue::new(RELAY_RING));
            let other = queue.clone();
            (Box::new(move |item| queue.push(item).is_ok()), Box::new(move || other.pop()))
        }),
        ("crossbeam channel", || {
            let (sender, receiver) = crossbeam::channel::bounded(RELAY_RING);
            (Box::new(move |item| sender.try_send(item).is_ok()), Box::new(move || receiver.try_recv().ok()))
        }),
        ("std sync_channel", || {
            let (sender, receiver) = std::sync::mpsc::sync_channel(RELAY_RING);
            (Box::new(move |item| sender.try_send(item).is_ok()), Box::new(move || receiver.try_recv().ok()))
        }),
    ]
}

fn main() {
    let args = Args::read();
    let mut report = Report::new("rings", &args);
    measure(&args, &mut report, "a word", 0u64);
    measure::<Packet>(&args, &mut report, "a packet", [7; DATAGRAM_SIZE_MAX + 100]);
    report.finish();
}

fn measure<T: Copy + Send + 'static>(args: &Args, report: &mut Report, what: &str, item: T) {
    let items = args.pick(1_000, 50_000, 200_000);
    let mut queues = kinds::<T>();
    let alone = take_turns(&mut queues, args.pick(1, 5, 20), |(_, open)| {
        let (mut push, mut pop) = open();
        let spent = cpu_of(|| {
            for _ in 0..items {
                push(black_box(item));
                black_box(pop());
            }
        });
        spent.as_nanos() as f64 / items as f64
    });
    tell(report, &format!("{what}, alone"), &queues, &alone);
    if cores() < 2 {
        return report.skip("rings between cores: there is one core");
    }
    let between = take_turns(&mut queues, args.pick(1, 5, 20), |(_, open)| {
        let (mut push, mut pop) = open();
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pin(1);
                for _ in 0..items {
                    while !push(black_box(item)) {
                        spin_loop();
                    }
                }
            });
            scope.spawn(move || {
                pin(0);
                for _ in 0..items {
                    while black_box(pop()).is_none() {
                        spin_loop();
                    }
                }
            });
        });
        began.elapsed().as_nanos() as f64 / items as f64
    });
    tell(report, &format!("{what}, between cores"), &queues, &between);
}

fn tell<T>(report: &mut Report, what: &str, queues: &[Kind<T>], results: &[ringmain_benches::measure::Rounds]) {
    let Some((ours, others)) = results.split_first() else { return };
    report.row(Row::new(format!("{what}, {}", queues[0].0), ours.median(), "ns"));
    for ((name, _), theirs) in queues[1..].iter().zip(others) {
        let row = Row::new(format!("{what}, {name}"), theirs.median(), "ns");
        report.row(row.beside_by("rtrb", ours.median(), theirs.ratio(ours)));
    }
}
