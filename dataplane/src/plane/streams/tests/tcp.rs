//! Bare TCP: TURN, and ICE of media.

use super::*;

#[test]
fn messages_come_back_whole_and_padded_wherever_they_were_cut() {
    let world = World::new();
    let mut client = world.client();
    let messages = [stun(8), channel_data(5, 1), channel_data(1200, 2), stun(0), channel_data(3, 3)];
    let mut wire = Vec::new();
    messages.iter().for_each(|message| _ = Framing::Turn.write(message, &mut wire));
    for step in [1, 3, 50, 5000] {
        client.set_nodelay(true).expect("a socket");
        for part in wire.chunks(step) {
            client.write_all(part).expect("open");
        }
        assert_eq!(read_exactly(&mut client, wire.len()), wire);
    }
    let FromStream::Opened { id, client: told } = world.hear() else { panic!("it opens first") };
    let expected = StreamClient {
        remote: client.local_addr().expect("bound"),
        local: world.address,
        transport: TurnTransport::Tcp,
    };
    assert_eq!(told, expected);
    drop(client);
    assert_eq!(world.hear(), FromStream::Closed { id });
}

#[test]
fn a_worker_can_end_a_connection_after_its_last_word() {
    let world = World::new();
    let mut client = world.client();
    client.write_all(&stun(0)).expect("open");
    read_exactly(&mut client, 20);
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    world.say.send(ToStream::Message { id, bytes: channel_data(4, 9), held_until: Now(0) }).expect("runs");
    world.say.send(ToStream::Close { id }).expect("runs");
    assert_eq!(read_exactly(&mut client, 8), channel_data(4, 9));
    assert_closed(&mut client);
    world.say.send(ToStream::Message { id, bytes: channel_data(4, 9), held_until: Now(0) }).expect("runs");
    let mut next = world.client();
    next.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut next, 20), stun(0), "and not what was for the one before");
}

#[test]
fn the_last_word_arrives_although_the_client_goes_on_talking() {
    let world = World::new();
    let mut client = world.client();
    client.write_all(&stun(0)).expect("open");
    read_exactly(&mut client, 20);
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    world.say.send(ToStream::Message { id, bytes: channel_data(60_000, 9), held_until: Now(0) }).expect("runs");
    world.say.send(ToStream::Close { id }).expect("runs");
    let start = Instant::now();
    // Until it is told, and beyond.
    while start.elapsed() < Duration::from_millis(300) {
        client.write_all(&stun(400)).expect("no reset");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut came = Vec::new();
    client.read_to_end(&mut came).expect("an end, and no reset");
    assert!(came.ends_with(&channel_data(60_000, 9)), "behind what came back before");
    // It does not go on for ever.
    while client.write_all(&stun(400)).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(6), "it still listens");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A check as it is written to a connection.
fn check(ufrag: &str) -> Vec<u8> {
    let request = BindingRequest {
        transaction_id: TransactionId([3; 12]),
        remote_ufrag: ufrag,
        local_ufrag: "them",
        priority: 1,
        role: IceRole::Controlling(1, true),
    };
    let mut bytes = vec![0; 300];
    let size = write_binding_request(&mut bytes, &request, &IntegrityKey::new(b"password")).expect("room");
    bytes.truncate(size);
    let mut wire = Vec::new();
    assert!(Framing::Length.write(&bytes, &mut wire));
    wire
}

#[test]
fn ice_goes_to_the_worker_that_the_first_check_names_and_to_nobody_else() {
    let mut world = World::new();
    world.order(StreamOrder::Name { ufrag: "ours".into(), worker: WorkerIndex(0) });
    let mut known = world.client();
    known.write_all(&check("ours")).expect("open");
    assert_eq!(read_exactly(&mut known, check("ours").len()), check("ours"));
    let mut media = vec![0, 3, 0x80, 1, 2];
    known.write_all(&media).expect("open");
    assert_eq!(read_exactly(&mut known, 5), media);
    media.truncate(4);
    known.write_all(&media).expect("open");
    let mut unknown = world.client();
    unknown.write_all(&check("nobody")).expect("open");
    assert_closed(&mut unknown);
    world.order(StreamOrder::Forget { ufrag: "ours".into() });
    let mut late = world.client();
    std::thread::sleep(Duration::from_millis(50));
    late.write_all(&check("ours")).expect("open");
    assert_closed(&mut late);
    world.wait_for("two strangers", |stats| stats.unknown_protocol == 2);
}

#[test]
fn orders_are_carried_out_however_many_come_at_once() {
    let mut world = World::new();
    let orders = world.orders.as_mut().expect("until dropped");
    for number in 0..4000 {
        orders.push(StreamOrder::Name { ufrag: format!("{number}"), worker: WorkerIndex(0) }).expect("room");
    }
    world.wake.wake();
    // Well before a thread turns that has nothing to do.
    let start = Instant::now();
    while world.orders.as_ref().is_some_and(|orders| orders.slots() < ORDERS) {
        assert!(start.elapsed() < Duration::from_millis(700), "orders wait");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_end_of_an_ice_connection_is_told_and_so_is_that_of_its_transport() {
    let mut world = World::new();
    world.order(StreamOrder::Name { ufrag: "ours".into(), worker: WorkerIndex(0) });
    let wire = check("ours");
    let mut clients: Vec<TcpStream> = (0..3).map(|_| world.client()).collect();
    for client in &mut clients {
        client.write_all(&wire).expect("open");
        assert_eq!(read_exactly(client, wire.len()), wire);
    }
    world.wait_for("three of ICE", |stats| stats.ice == 3);
    let gone = clients.remove(0);
    let remote = gone.local_addr().expect("bound");
    drop(gone);
    let FromStream::PathClosed { path } = world.hear() else { panic!("it is told") };
    assert_eq!(path.remote, remote);
    // The other way round: the worker knows already.
    let (mut ended, mut left) = (clients.remove(0), clients.remove(0));
    let path = Path { remote: ended.local_addr().expect("bound"), socket: SocketIndex(path.socket.0 + 1) };
    world.say.send(ToStream::Datagram { path, bytes: vec![9; 3] }).expect("runs");
    world.say.send(ToStream::ClosePath { path }).expect("runs");
    assert_eq!(read_exactly(&mut ended, 5), [0, 3, 9, 9, 9], "what was sent before still comes");
    assert_closed(&mut ended);
    left.write_all(&[0, 1, 0x80]).expect("open");
    assert_eq!(read_exactly(&mut left, 3), [0, 1, 0x80]);
    world.wait_for("one of ICE", |stats| stats.ice == 1 && stats.connections == 1);
    assert!(world.heard.try_recv().is_err(), "nothing more is told");
}

#[test]
fn media_for_who_does_not_read_is_dropped_in_whole_packets_and_not_kept_by_the_kernel() {
    let mut world = World::new();
    world.order(StreamOrder::Name { ufrag: "ours".into(), worker: WorkerIndex(0) });
    let mut slow = world.client();
    let wire = check("ours");
    slow.write_all(&wire).expect("open");
    read_exactly(&mut slow, wire.len());
    world.wait_for("one of ICE", |stats| stats.ice == 1);
    let path = Path { remote: slow.local_addr().expect("bound"), socket: ice_socket(1) };
    let packets = 4_000u32;
    for number in 0..packets {
        let bytes = [&number.to_be_bytes()[..], &[7; 1000]].concat();
        world.say.send(ToStream::Datagram { path, bytes }).expect("runs");
        if number % 200 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    world.wait_for("its queue is full", |stats| stats.queue_full > 0);
    let mut came = Vec::new();
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut size = [0; 2];
    while slow.read_exact(&mut size).is_ok() {
        assert_eq!(u16::from_be_bytes(size), 1004, "frames stay whole");
        let bytes = read_exactly(&mut slow, 1004);
        came.push(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    assert!(came.is_sorted() && came[0] == 0, "in order, without those that found no room");
    drop(slow);
    let stats = world.wait_for("it is gone", |stats| stats.ice == 0);
    assert_eq!(stats.queue_full + came.len() as u64, u64::from(packets), "every packet is accounted for");
}

#[test]
fn one_address_has_its_share_and_others_are_served() {
    let limits = StreamLimits { per_address_max: 8, ..StreamLimits::default() };
    let mut world = World::with(StreamSettings { listeners: vec![listener(false)], limits, ..Default::default() });
    let hogs: Vec<TcpStream> = (0..8).map(|_| world.client()).collect();
    world.wait_for("all are in", |stats| stats.accepted == 8);
    assert_closed(&mut world.client());
    let mut other = world.client_from([127, 0, 0, 2].into());
    other.write_all(&stun(4)).expect("open");
    assert_eq!(read_exactly(&mut other, 24), stun(4));
    drop(hogs);
    world.wait_for("room again", |stats| stats.connections == 1 && stats.refused == 1);
    let mut again = world.client();
    again.write_all(&stun(4)).expect("open");
    assert_eq!(read_exactly(&mut again, 24), stun(4));
}

#[test]
fn who_has_an_allocation_takes_no_place_of_those_who_come() {
    let limits = StreamLimits { unproved_per_address_max: 2, ..StreamLimits::default() };
    let mut world = World::with(StreamSettings { listeners: vec![listener(false)], limits, ..Default::default() });
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = world.client();
        client.write_all(&stun(0)).expect("open");
        assert_eq!(read_exactly(&mut client, 20), stun(0));
        let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
        let allocated = ToStream::Message { id, bytes: stun(4), held_until: Now::from_millis(600_000) };
        world.say.send(allocated).expect("runs");
        assert_eq!(read_exactly(&mut client, 24), stun(4));
        clients.push(client);
    }
    let strangers = [world.client(), world.client()];
    world.wait_for("two more are in", |stats| stats.accepted == 12);
    assert_closed(&mut world.client());
    drop(strangers);
    world.wait_for("room again", |stats| stats.connections == 10 && stats.refused == 1);
    clients.truncate(5);
    world.wait_for("five have left", |stats| stats.connections == 5);
    let mut last = [world.client(), world.client()];
    last.iter_mut().for_each(|client| client.write_all(&stun(4)).expect("open"));
    last.iter_mut().for_each(|client| assert_eq!(read_exactly(client, 24), stun(4)));
    assert_closed(&mut world.client());
}

#[test]
fn slow_senders_are_closed_in_time_while_others_are_served() {
    let mut world = World::new();
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..60).map(|_| world.client()).collect();
    let message = stun(400);
    let mut quick = world.client_from([127, 0, 0, 2].into());
    quick.set_nodelay(true).expect("a socket");
    let mut answered = Vec::new();
    // A byte now and then, as long as nobody's time is over.
    for byte in message.iter().take_while(|_| start.elapsed() < Duration::from_secs(8)) {
        slow.iter_mut().for_each(|stream| stream.write_all(&[*byte]).expect("open so far"));
        let asked = Instant::now();
        quick.write_all(&stun(0)).expect("open");
        read_exactly(&mut quick, 20);
        answered.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    answered.sort();
    slow.iter_mut().for_each(assert_closed);
    assert!((8..16).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(answered[answered.len() / 2] < Duration::from_millis(500), "{answered:?} for answers beside them");
    world.wait_for("all were silent", |stats| stats.silent == 60);
    quick.write_all(&stun(0)).expect("open");
    assert_eq!(read_exactly(&mut quick, 20), stun(0));
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    let mut world = World::new();
    let mut clients: Vec<TcpStream> =
        (0..1000u32).map(|number| world.client_from([127, 0, 9, (number / 50) as u8 + 1].into())).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let mut wire = stun(8);
            Framing::Turn.write(&channel_data(number % 1000 + 1, round), &mut wire);
            client.write_all(&wire).expect("open");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut wire = stun(8);
            Framing::Turn.write(&channel_data(number % 1000 + 1, round), &mut wire);
            assert_eq!(read_exactly(client, wire.len()), wire);
        }
    }
    let ids: HashSet<StreamId> = std::iter::from_fn(|| world.heard.try_recv().ok())
        .map(|item| match item {
            FromStream::Opened { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1000);
    drop(clients);
    let stats = world.wait_for("all gone", |stats| stats.connections == 0);
    assert_eq!((stats.accepted, stats.lost, stats.queue_full, stats.refused), (1000, 0, 0, 0));
}

#[test]
fn who_does_not_read_loses_messages_and_holds_up_nobody() {
    let mut world = World::new();
    let mut deaf = world.client();
    let mut other = world.client_from([127, 0, 0, 2].into());
    let mut wire = Vec::new();
    (0..64).for_each(|_| _ = Framing::Turn.write(&channel_data(1000, 1), &mut wire));
    deaf.write_all(&stun(0)).expect("open");
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                deaf.write_all(&wire).expect("it is read");
                std::thread::sleep(Duration::from_millis(2));
            }
            deaf
        }
    });
    world.wait_for("its queue is full", |stats| stats.queue_full > 100);
    for _ in 0..20 {
        other.write_all(&stun(4)).expect("open");
        assert_eq!(read_exactly(&mut other, 24), stun(4));
    }
    assert!(stopped.elapsed() < Duration::from_secs(10));
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("no panic");
}
