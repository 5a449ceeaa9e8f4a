//! Connections to peers (RFC 6062), which nothing but these tests asks for yet.

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
    world.say.send(ToStream::Connect { request: 7, local: relayed, peer: address }).expect("runs");
    let (mut far, _) = peer.accept().expect("we connect");
    far.write_all(b"before they were joined").expect("open");
    let FromStream::Connected { request: 7, peer: Some(peer_id) } = world.hear() else { panic!("connected") };
    world.say.send(ToStream::Message { id: client_id, bytes: stun(4), held_until: Now(0) }).expect("runs");
    world.say.send(ToStream::Join { client: client_id, peer: peer_id }).expect("runs");
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
    let mut gone = [world.hear(), world.hear()].map(|item| match item {
        FromStream::Closed { id } => id,
        other => panic!("{other:?}"),
    });
    gone.sort();
    let mut both = [client_id, peer_id];
    both.sort();
    assert_eq!(gone, both);
}

#[test]
fn a_peer_that_cannot_be_reached_is_told_of() {
    let world = World::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
    let relayed = SocketAddr::from(([127, 0, 0, 1], 0));
    world.say.send(ToStream::Connect { request: 3, local: relayed, peer: closed }).expect("runs");
    assert_eq!(world.hear(), FromStream::Connected { request: 3, peer: None });
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9));
    world.say.send(ToStream::Connect { request: 4, local: foreign, peer: closed }).expect("runs");
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
    world.say.send(ToStream::Join { client: client_id, peer: id }).expect("runs");
    far.write_all(b"hello").expect("open");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    client.write_all(b"\x00\x01 these are no frames").expect("open");
    assert_eq!(read_exactly(&mut far, 22), b"\x00\x01 these are no frames");
    world.say.send(ToStream::StopListening { request: 5 }).expect("runs");
    let start = Instant::now();
    while TcpStream::connect(relayed).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "it still listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    world.say.send(ToStream::Close { id: client_id }).expect("runs");
    assert_closed(&mut client);
    assert_closed(&mut far);
}
