//! When a worker may sleep past what comes: while peers do nothing but check whether we are there.

use std::time::Duration;

use ringmain_dataplane::buf::RX_BATCH_MAX;
use ringmain_dataplane::stream::{FromStream, StreamId};
use ringmain_shared::transport::Side;
use ringmain_shared::{Command, DropReason};

use crate::media::*;
use crate::world::World;

/// Time with nothing but checks.
const LIVELY: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(5);

#[test]
fn a_worker_naps_once_nothing_but_checks_has_come_for_two_seconds() {
    let (mut world, publisher, mut camera) = with_media();
    let packets = camera.frame(&mut world, true, 2);
    packets.iter().for_each(|packet| world.send_rtp(publisher, packet));
    world.settle();
    let last = world.now;
    let mut checks = 0;
    for step in 1..10_000 {
        world.run_ms(1);
        if step % 300 == 0 {
            world.check(publisher, world.peers[publisher].address, false);
            world.settle();
            checks += 1;
        }
        let is_idle = world.now.since(last) > LIVELY;
        let nap = world.workers[0].nap(world.now);
        assert_eq!(nap, is_idle.then_some(NAP), "{step} ms after the last packet");
    }
    assert!(world.peers[publisher].responses > checks, "checks are answered all the while");
}

#[test]
fn whatever_else_comes_keeps_a_worker_awake() {
    let (mut world, publisher, mut camera) = with_media();
    let comes: [&dyn Fn(&mut World); 5] = [
        &|world| world.push(0, "192.0.2.66:6".parse().expect("an address"), b"of a stranger"),
        &|world| world.secure(publisher),
        &|world| world.command(0, Command::Snapshot { request: 1 }),
        &|world| world.stream(FromStream::Closed { id: StreamId(1) }),
        &|world| world.send_compound(publisher, &[&rtcp::receiver_report::ReceiverReport::default()]),
    ];
    for (number, comes) in comes.iter().enumerate() {
        rests(&mut world);
        comes(&mut world);
        world.settle();
        assert_eq!(world.workers[0].nap(world.now), None, "{number}");
    }
    rests(&mut world);
    let packets = camera.frame(&mut world, true, 1);
    world.send_rtp(publisher, &packets[0]);
    world.settle();
    assert_eq!(world.workers[0].nap(world.now), None);
}

#[test]
fn ice_that_is_refused_wakes_nobody_if_its_address_is_proved() {
    let (mut world, publisher, _) = with_media();
    let (known, stranger) = (world.peers[publisher].address, "192.0.2.66:6".parse().expect("an address"));
    rests(&mut world);
    // Our check was slow to be answered and repeated: the second answer finds nothing that waits for it.
    let late = world.peers[publisher].answer.clone();
    let mut broken = world.request(publisher, false);
    *broken.last_mut().expect("not empty") ^= 1;
    for (reason, bytes) in [(DropReason::StunUnexpected, late), (DropReason::StunMalformed, broken)] {
        let dropped = world.dropped(reason);
        world.push(0, known, &bytes);
        world.settle();
        assert_eq!(world.dropped(reason), dropped + 1);
        assert_eq!(world.workers[0].nap(world.now), Some(NAP), "{reason:?}");
        world.push(0, stranger, &bytes);
        world.settle();
        assert_eq!(world.dropped(reason), dropped + 2);
        assert_eq!(world.workers[0].nap(world.now), None, "{reason:?} of a stranger");
        rests(&mut world);
    }
}

#[test]
fn what_is_behind_a_full_batch_does_not_wait_for_a_nap() {
    let (mut world, publisher, _) = with_media();
    let (check, address) = (world.request(publisher, false), world.peers[publisher].address);
    rests(&mut world);
    (0..RX_BATCH_MAX + 1).for_each(|_| world.push(0, address, &check));
    for (nap, what) in [(None, "one is left"), (Some(NAP), "nothing is left")] {
        world.turn(0);
        assert_eq!(world.workers[0].nap(world.now), nap, "{what}");
    }
}

fn with_media() -> (World, usize, Camera) {
    let mut world = World::new(1);
    let publisher = world.join(Side::Publisher);
    world.receive(publisher, receive_spec(10_000, &[]));
    let subscriber = world.join(Side::Subscriber);
    subscribe(&mut world, subscriber, 10_000, VIDEO);
    world.settle();
    (world, publisher, Camera::new(10_000, 0))
}

fn rests(world: &mut World) {
    world.run(LIVELY + Duration::from_millis(1));
    assert!(world.workers[0].nap(world.now).is_some());
}
