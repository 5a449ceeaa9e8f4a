//! The actor between a client's line and a data plane that is fed by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringmain_shared::command::Command;
use ringmain_shared::event::Event;
use ringmain_shared::id::TransportId;
use tokio::sync::watch;
use tokio::time::timeout;

use super::actor::Actor;
use super::connection::{Connection, Door, Outgoing, door};
use super::fakes::{EchoRooms, FakePlane, Feeder, Told};

/// Whence clients come.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Joined {
    door: Door,
    told: mpsc::Receiver<Told>,
    feeder: Feeder,
    _stop: watch::Sender<bool>,
}

fn joined(refuse: usize) -> Joined {
    let (tell, told) = mpsc::channel();
    let (mut plane, feeder) = FakePlane::new(tell.clone());
    plane.refuse = refuse;
    let (door, inbox) = door();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(Actor::new(EchoRooms::new(tell), plane, 1, Instant::now()).run(inbox, stopped));
    Joined { door, told, feeder, _stop: stop }
}

impl Joined {
    async fn next(&self, is: impl Fn(&Told) -> bool) -> Told {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            match self.told.try_recv() {
                Ok(told) if is(&told) => return told,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        panic!("the rooms were not told");
    }
}

async fn next_text(connection: &mut Connection) -> String {
    match timeout(Duration::from_secs(5), connection.outgoing()).await.expect("in time") {
        Outgoing::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_ring_delays_commands_and_keeps_their_order() {
    let joined = joined(3);
    let connection = joined.door.open(FROM).expect("open");
    assert!(connection.pass("commands 40".into()).await);
    for expected in 0..40 {
        let told = joined.next(|told| matches!(told, Told::Command(_))).await;
        assert_eq!(told, Told::Command(Command::Snapshot { request: expected }));
    }
    let report = joined.door.report().await.expect("alive");
    assert_eq!((report.backlog, report.commands_lost), (0, 0));
}

#[tokio::test]
async fn timers_of_the_rooms_fire_without_other_input() {
    let joined = joined(0);
    let connection = joined.door.open(FROM).expect("open");
    assert!(connection.pass("timer".into()).await);
    let began = Instant::now();
    joined.next(|told| *told == Told::Timeout).await;
    assert!(began.elapsed() < Duration::from_millis(400), "by its own deadline and not by the idle one");
}

#[tokio::test]
async fn events_arrive_in_order_however_many_come_at_once() {
    let mut joined = joined(0);
    let event = |number| Event::Secured { transport: TransportId(number) };
    (0..1000).for_each(|number| joined.feeder.give(event(number)));
    for number in 0..1000 {
        assert_eq!(joined.next(|told| matches!(told, Told::Event(_))).await, Told::Event(event(number)));
    }
    // The wake-up works again after the queue ran dry.
    joined.feeder.give(event(1000));
    joined.next(|told| matches!(told, Told::Event(_))).await;
}

#[tokio::test]
async fn a_dropped_line_makes_its_client_leave_exactly_once() {
    let joined = joined(0);
    let gone = joined.door.open(FROM).expect("open");
    let id = gone.id();
    assert!(gone.pass("timer".into()).await);
    drop(gone);
    joined.next(|told| *told == Told::Closed(id)).await;
    let mut other = joined.door.open(FROM).expect("open");
    assert!(other.pass("echo still".into()).await);
    assert_eq!(next_text(&mut other).await, "still");
    assert!(!joined.told.try_iter().any(|told| told == Told::Closed(id)));
    assert_eq!(joined.door.report().await.expect("alive").connections, 1);
}

#[tokio::test]
async fn what_is_written_makes_room_for_more() {
    let joined = joined(0);
    let mut connection = joined.door.open(FROM).expect("open");
    for _ in 0..10 {
        assert!(connection.pass("flood 200".into()).await);
        for _ in 0..200 {
            let text = next_text(&mut connection).await;
            connection.written(text.len());
        }
    }
    assert!(connection.pass("flood 300".into()).await);
    joined.next(|told| matches!(told, Told::Closed(_))).await;
    assert_eq!(connection.outgoing().await, Outgoing::Overflown);
}

#[tokio::test]
async fn a_message_longer_than_the_bound_may_follow_a_short_one() {
    let joined = joined(0);
    let mut connection = joined.door.open(FROM).expect("open");
    assert!(connection.pass("echo reply".into()).await);
    let offer = "o".repeat(super::connection::OUTGOING_SIZE_MAX + 1);
    assert!(connection.pass(format!("echo {offer}")).await);
    assert_eq!(next_text(&mut connection).await, "reply");
    assert_eq!(next_text(&mut connection).await, offer);
}
