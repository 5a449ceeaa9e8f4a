//! Connections of peers (RFC 6062), as a worker asks for them.

use super::*;

/// A client of TURN as its worker knows it.
fn turn_client(world: &World) -> (TcpStream, StreamId) {
    let mut client = world.client();
    client.write_all(&stun(0)).expect("open");
    read_exactly(&mut client, 20);
    let FromStream::Opened { id, .. } = world.hear() else { panic!("it opens first") };
    (client, id)
}

#[test]
fn a_client_is_joined_to_a_peer_that_we_connect_to() {
    let world = World::new();
    let peer = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let relayed = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut client, client_id) = turn_client(&world);
    let address = peer.local_addr().expect("bound");
    world.say.send(ToStream::Connect { request: 7, local: relayed, peer: address, relayed: false }).expect("runs");
    let (mut far, _) = peer.accept().expect("we connect");
    far.write_all(b"before they were joined").expect("open");
    let FromStream::Connected { request: 7, peer: Some(peer_id) } = world.hear() else { panic!("connected") };
    world.say.send(ToStream::Join { client: client_id, peer: peer_id, answer: stun(4) }).expect("runs");
    world.say.send(ToStream::Grant { peer: peer_id, bytes: 8_000_000 }).expect("runs");
    assert_eq!(read_exactly(&mut client, 24), stun(4));
    assert_eq!(read_exactly(&mut client, 23), b"before they were joined");
    let body: Vec<u8> = (0..3_000_000u32).map(|number| (number / 3) as u8).collect();
    let mut writing = client.try_clone().expect("a descriptor");
    let sent = body.clone();
    let writer = std::thread::spawn(move || writing.write_all(&sent).expect("open"));
    assert!(read_exactly(&mut far, body.len()) == body);
    writer.join().expect("no panic");
    far.write_all(b"last words").expect("open");
    drop(far);
    assert_eq!(read_exactly(&mut client, 10), b"last words");
    assert_closed(&mut client);
    let (mut gone, mut relayed) = (HashSet::new(), (0, 0));
    while gone.len() < 2 {
        match world.hear() {
            FromStream::Closed { id } => _ = gone.insert(id),
            FromStream::Relayed { peer, to_peer, to_client } if peer == peer_id && !gone.contains(&peer_id) => {
                relayed = (relayed.0 + to_peer, relayed.1 + to_client);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((gone, relayed), (HashSet::from([client_id, peer_id]), (3_000_000, 33)));
}

#[test]
fn a_pair_relays_what_it_has_credit_for_and_no_more() {
    let world = World::new();
    let peer = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let (mut client, client_id) = turn_client(&world);
    let address = peer.local_addr().expect("bound");
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    world.say.send(ToStream::Connect { request: 7, local, peer: address, relayed: false }).expect("runs");
    let (mut far, _) = peer.accept().expect("we connect");
    let FromStream::Connected { request: 7, peer: Some(peer_id) } = world.hear() else { panic!("connected") };
    world.say.send(ToStream::Join { client: client_id, peer: peer_id, answer: stun(0) }).expect("runs");
    read_exactly(&mut client, 20);
    far.write_all(&[1; 100_000]).expect("the kernel takes it");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("any socket has one");
    for credit in [0, 1, 999, 50_000] {
        if credit > 0 {
            world.say.send(ToStream::Grant { peer: peer_id, bytes: credit as u32 }).expect("runs");
            read_exactly(&mut client, credit);
            let mut told = 0;
            while told < credit {
                let FromStream::Relayed { peer, to_peer: 0, to_client } = world.hear() else { panic!("it tells") };
                assert_eq!(peer, peer_id);
                told += to_client as usize;
            }
            assert_eq!(told, credit);
        }
        let more = client.read(&mut [0; 10]);
        assert!(more.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{more:?} beyond {credit}");
    }
    // The other way takes from the same.
    client.write_all(b"hello").expect("the kernel takes it");
    world.say.send(ToStream::Cut { peer: peer_id }).expect("runs");
    assert_closed(&mut client);
    assert_closed(&mut far);
    let gone = HashSet::from([world.hear(), world.hear()].map(|item| match item {
        FromStream::Closed { id } => id,
        other => panic!("{other:?}"),
    }));
    assert_eq!(gone, HashSet::from([client_id, peer_id]));
}

#[test]
fn a_relayed_address_is_reached_only_where_we_listen() {
    let world = World::new();
    let foreign = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    world.say.send(ToStream::Connect { request: 1, local, peer: foreign, relayed: true }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 1, peer: None });
    world.say.send(ToStream::Listen { request: 5, address: local }).expect("runs");
    let FromStream::Listening { request: 5, address: Some(relayed) } = world.hear() else { panic!("listens") };
    world.say.send(ToStream::Connect { request: 2, local, peer: relayed, relayed: true }).expect("runs");
    let (mut connected, mut arrived) = (None, None);
    for _ in 0..2 {
        match world.hear() {
            FromStream::Connected { request: 2, peer } => connected = peer,
            FromStream::Arrived { request: 5, id, .. } => arrived = Some(id),
            other => panic!("{other:?}"),
        }
    }
    assert!(connected.is_some() && arrived.is_some() && connected != arrived);
}

#[test]
fn nothing_is_heard_of_a_connection_that_nobody_waits_for() {
    let world = World::new();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    // A listener that never accepts, with a full queue, leaves those who connect without an answer.
    let full = Socket2::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    full.bind(&local.into()).expect("loopback");
    full.listen(0).expect("listens");
    let peer = full.local_addr().expect("bound").as_socket().expect("IPv4");
    let _held: Vec<_> = (0..2).map(|_| TcpStream::connect_timeout(&peer, Duration::from_millis(100))).collect();
    world.say.send(ToStream::Connect { request: 1, local, peer, relayed: false }).expect("runs");
    world.say.send(ToStream::StopConnecting { request: 1 }).expect("runs");
    drop(full);
    world.say.send(ToStream::Listen { request: 5, address: local }).expect("runs");
    let next = world.hear();
    assert!(matches!(next, FromStream::Listening { request: 5, address: Some(_) }), "{next:?}");
}

#[test]
fn a_peer_that_cannot_be_reached_is_told_of() {
    let world = World::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let relayed = SocketAddr::from(([127, 0, 0, 1], 0));
    world.say.send(ToStream::Connect { request: 3, local: relayed, peer: closed, relayed: false }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 3, peer: None });
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9));
    world.say.send(ToStream::Connect { request: 4, local: foreign, peer: closed, relayed: false }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 4, peer: None });
}

#[test]
fn a_peer_can_connect_to_a_relayed_address_until_it_is_closed() {
    let world = World::new();
    let (mut client, client_id) = turn_client(&world);
    world.say.send(ToStream::Listen { request: 5, address: ([127, 0, 0, 1], 0).into() }).expect("runs");
    let FromStream::Listening { request: 5, address: Some(relayed) } = world.hear() else { panic!("listens") };
    let mut far = TcpStream::connect(relayed).expect("listens");
    let FromStream::Arrived { request: 5, id, peer } = world.hear() else { panic!("arrives") };
    assert_eq!(peer, far.local_addr().expect("bound"));
    world.say.send(ToStream::Join { client: client_id, peer: id, answer: stun(0) }).expect("runs");
    world.say.send(ToStream::Grant { peer: id, bytes: 1000 }).expect("runs");
    read_exactly(&mut client, 20);
    far.write_all(b"hello").expect("open");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    client.write_all(b"\x00\x01 these are no frames").expect("open");
    assert_eq!(read_exactly(&mut far, 22), b"\x00\x01 these are no frames");
    world.say.send(ToStream::StopListening { request: 5 }).expect("runs");
    let start = Instant::now();
    while TcpStream::connect(relayed).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    world.say.send(ToStream::Close { id: client_id }).expect("runs");
    assert_closed(&mut client);
    assert_closed(&mut far);
}

#[test]
fn strangers_at_a_relayed_address_take_no_more_places_than_a_worker_looks_at() {
    let mut world = World::new();
    world.say.send(ToStream::Listen { request: 5, address: ([127, 0, 0, 1], 0).into() }).expect("runs");
    let FromStream::Listening { request: 5, address: Some(relayed) } = world.hear() else { panic!("listens") };
    let arrive = |world: &World| match world.hear() {
        FromStream::Arrived { request: 5, id, .. } => id,
        other => panic!("{other:?}"),
    };
    let max = super::super::relay::UNJUDGED_MAX;
    let mut crowd: Vec<TcpStream> = (0..max).map(|_| TcpStream::connect(relayed).expect("listens")).collect();
    let arrived: Vec<StreamId> = (0..max).map(|_| arrive(&world)).collect();
    assert_closed(&mut TcpStream::connect(relayed).expect("the kernel accepts"));
    world.wait_for("one too many", |stats| stats.refused == 1);
    // One is permitted, one is not: either makes room.
    world.say.send(ToStream::Admit { peer: arrived[0] }).expect("runs");
    world.say.send(ToStream::Cut { peer: arrived[1] }).expect("runs");
    assert_closed(&mut crowd[1]);
    assert_eq!(world.hear(), FromStream::Closed { id: arrived[1] });
    crowd.extend((0..2).map(|_| TcpStream::connect(relayed).expect("listens")));
    (0..2).for_each(|_| _ = arrive(&world));
    assert_closed(&mut TcpStream::connect(relayed).expect("the kernel accepts"));
    world.wait_for("too many again", |stats| stats.refused == 2);
    crowd[0].write_all(b"still there").expect("open");
}
