//! RFC 5780: what is told of NATs, and what nobody gains by it who forges an address.

use std::net::SocketAddr;

use ringmain_shared::turn::DiscoveryListener;

use super::world::*;
use crate::io::{Link, Path, SocketIndex};
use crate::packet::stun::{Class, Message, attribute, error, method};
use crate::turn::Client;

/// Ports 3478 and 3479 of two addresses; behind the sockets are others, as behind a one-to-one NAT.
const LISTENERS: [&str; 4] = ["203.0.113.1:3478", "203.0.113.2:3478", "203.0.113.1:3479", "203.0.113.2:3479"];
const LISTENERS_V6: [&str; 4] =
    ["[2001:db8::1]:3478", "[2001:db8::2]:3478", "[2001:db8::1]:3479", "[2001:db8::2]:3479"];
/// The first of them. Before are those of media, behind those of the other family.
const FIRST: u16 = 2;

fn discoverers(family: [&str; 4], first: u16) -> impl Iterator<Item = Option<DiscoveryListener>> {
    family.into_iter().zip(0..).map(move |(announce, number)| {
        Some(DiscoveryListener {
            announce: announce.parse().unwrap(),
            other_address: first + (number ^ 1),
            other_port: first + (number ^ 2),
            other: first + (number ^ 3),
        })
    })
}

fn world() -> World {
    let mut spec = spec();
    spec.discovery = discoverers(LISTENERS, 0).chain(discoverers(LISTENERS_V6, 4)).collect();
    let mut world = World::new(spec);
    world.turn.share_sockets(FIRST..FIRST + 8);
    world
}

/// Somebody who asks the n-th listener.
fn at(number: u16) -> Client {
    let Client { path, transport } = client(number);
    Client { path: Path { socket: SocketIndex(FIRST + number), ..path }, transport }
}

/// The answer to a Binding request, and the way that it took.
fn ask(world: &mut World, client: Client, attributes: &[(u16, Vec<u8>)]) -> (Path, Vec<u8>) {
    let request = raw(method::BINDING, world.transaction(), attributes);
    world.say(client, &request).unwrap();
    let [answer] = <[_; 1]>::try_from(world.take()).expect("one answer");
    answer
}

fn refused(world: &mut World, client: Client, attributes: &[(u16, Vec<u8>)]) -> u16 {
    let (path, answer) = ask(world, client, attributes);
    assert_eq!(path, client.path, "a refusal goes where it was asked");
    Message::parse(&answer).unwrap().error_code().expect("an error")
}

fn change(flags: u8) -> (u16, Vec<u8>) {
    (attribute::CHANGE_REQUEST, vec![0, 0, 0, flags])
}

fn response_port(port: u16) -> (u16, Vec<u8>) {
    (attribute::RESPONSE_PORT, port.to_be_bytes().into())
}

fn padding(size: usize) -> (u16, Vec<u8>) {
    (attribute::PADDING, vec![b'x'; size])
}

/// An address that is not XORed.
fn plain_address(message: &Message<'_>, attribute: u16) -> Option<SocketAddr> {
    let value = message.attribute(attribute)?;
    let port = u16::from_be_bytes(value[2..4].try_into().unwrap());
    Some(match value.len() {
        8 => (<[u8; 4]>::try_from(&value[4..]).unwrap(), port).into(),
        _ => (<[u8; 16]>::try_from(&value[4..]).unwrap(), port).into(),
    })
}

#[test]
fn answers_leave_from_the_address_and_port_that_are_wanted_and_name_them_as_clients_know_them() {
    for (first, family) in [(0, LISTENERS), (4, LISTENERS_V6)] {
        let address = |number: u16| -> SocketAddr { family[usize::from(number)].parse().unwrap() };
        for asked in 0..4 {
            for (flags, from) in [(0, asked), (0b100, asked ^ 1), (0b010, asked ^ 2), (0b110, asked ^ 3)] {
                let mut world = world();
                let client = at(first + asked);
                let (path, answer) = ask(&mut world, client, &[change(flags)]);
                let socket = SocketIndex(FIRST + first + from);
                assert_eq!(path, Path { socket, ..client.path }, "{asked} {flags:03b}");
                let answer = Message::parse(&answer).unwrap();
                assert_eq!(answer.class(), Class::Success);
                assert_eq!(answer.xor_mapped_address(), Some(client.path.remote));
                assert_eq!(plain_address(&answer, attribute::RESPONSE_ORIGIN), Some(address(from)));
                assert_eq!(plain_address(&answer, attribute::OTHER_ADDRESS), Some(address(asked ^ 3)));
            }
        }
    }
}

#[test]
fn where_there_is_no_other_address_its_attributes_are_unknown() {
    let mut world = world();
    let mut spec = spec();
    // The first has another, the second has not; the third's others are no sockets, which no spec of ours says.
    spec.discovery = discoverers(LISTENERS, 0).collect();
    spec.discovery[1] = None;
    for (place, strange) in [(2, 1), (3, 40_000)] {
        spec.discovery[place].as_mut().unwrap().other = strange;
    }
    world.turn.configure(spec, world.now);
    let media = Client { path: Path { socket: SocketIndex(0), ..client(9).path }, ..client(9) };
    for from in [at(0), at(1), at(2), at(3), at(7), media, stream_client(1)] {
        for attribute in [change(0b110), response_port(40_000), padding(100)] {
            assert_eq!(refused(&mut world, from, std::slice::from_ref(&attribute)), error::UNKNOWN_ATTRIBUTE);
            world.wait(std::time::Duration::from_secs(1));
        }
        // Nothing is asked for that could not be done.
        for attributes in [&[][..], &[change(0)]] {
            let (path, answer) = ask(&mut world, from, attributes);
            let answer = Message::parse(&answer).unwrap();
            assert_eq!(answer.xor_mapped_address(), Some(from.path.remote));
            assert_eq!((path, answer.attribute(attribute::OTHER_ADDRESS)), (from.path, None));
        }
    }
}

#[test]
fn an_answer_goes_to_another_port_of_who_asked_and_to_no_service() {
    let mut world = world();
    let client = at(0);
    // With and without the two bytes behind the port.
    for value in [vec![0x9c, 0x40], vec![0x9c, 0x40, 0, 0]] {
        let (path, answer) = ask(&mut world, client, &[(attribute::RESPONSE_PORT, value), change(0b010)]);
        let remote = SocketAddr::new(client.path.remote.ip(), 40_000);
        assert_eq!(path, Path { socket: SocketIndex(FIRST + 2), remote });
        assert_eq!(Message::parse(&answer).unwrap().xor_mapped_address(), Some(client.path.remote));
    }
    for port in [0, 53, 123, 1023] {
        assert_eq!(refused(&mut world, client, &[response_port(port)]), error::FORBIDDEN, "{port}");
    }
    let mut low = client;
    low.path.remote.set_port(500);
    assert_eq!(ask(&mut world, low, &[response_port(500)]).0, low.path, "where it would go anyway");
    world.wait(std::time::Duration::from_secs(1));
    // As if our own host had asked: a listener, a relay port, media.
    let mut own = client;
    own.path.remote = "198.51.100.1:40000".parse().unwrap();
    for port in [3478, 10_000, 10_099, 5000] {
        assert_eq!(refused(&mut world, own, &[response_port(port)]), error::FORBIDDEN, "{port}");
    }
    let (path, _) = ask(&mut world, own, &[response_port(3479)]);
    assert_eq!(path.remote, "198.51.100.1:3479".parse().unwrap());
}

#[test]
fn a_padded_answer_is_no_longer_than_its_request() {
    // What every answer has over IPv4, and over a socket of IPv6 to a client of IPv4.
    for (first, least) in [(0, 60), (4, 84)] {
        for size in [0, 4, 32, 36, 40, 60, 64, 100, 1000, 1472, 1496, 1500, 9000] {
            let mut world = world();
            let request = raw(method::BINDING, world.transaction(), &[padding(size)]);
            world.say(at(first), &request).unwrap();
            let (_, answer) = world.take().pop().unwrap();
            assert!(answer.len() <= request.len().max(least), "{} for {}", answer.len(), request.len());
            let message = Message::parse(&answer).unwrap();
            let told = message.attribute(attribute::PADDING).expect("padded, whatever fits");
            assert!(told.iter().all(|&byte| byte == 0));
            if size >= 100 {
                assert_eq!(answer.len(), request.len().min(1536), "as long as it may be");
            }
        }
    }
}

/// Of a longer train each segment must fit the path, and no more trains are sent to who has had one refused.
#[test]
fn padded_answers_are_trains_of_their_own() {
    let mut world = world();
    let mut requests = [100, 100, 64].map(|size| raw(method::BINDING, world.transaction(), &[padding(size)])).to_vec();
    requests.push(raw(method::BINDING, world.transaction(), &[]));
    let (_, out) = world.link.parts();
    for request in &requests {
        world.turn.handle_client(at(0), request, world.now, out).unwrap();
    }
    let trains: Vec<_> = out.batch().trains().iter().map(|train| (train.size, train.segments)).collect();
    assert_eq!(trains, [(requests[0].len(), 1), (requests[1].len(), 1), (requests[2].len(), 1), (56, 1)]);
    out.flush();
    // One that the path may have to be asked about is gone at once.
    let long = raw(method::BINDING, world.transaction(), &[padding(1500)]);
    let (_, out) = world.link.parts();
    world.turn.handle_client(at(0), &long, world.now, out).unwrap();
    assert!(out.batch().is_empty());
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut world = world();
    for attributes in [
        vec![padding(100), response_port(40_000)],
        vec![(attribute::CHANGE_REQUEST, vec![])],
        vec![(attribute::CHANGE_REQUEST, vec![0; 8])],
        vec![(attribute::RESPONSE_PORT, vec![])],
        vec![(attribute::RESPONSE_PORT, vec![0x9c, 0x40, 0])],
        vec![(attribute::RESPONSE_PORT, vec![0; 8])],
    ] {
        assert_eq!(refused(&mut world, at(0), &attributes), error::BAD_REQUEST, "{attributes:?}");
    }
    assert_eq!(refused(&mut world, at(0), &[(0x7fff, vec![])]), error::UNKNOWN_ATTRIBUTE);
}

/// A second of the worst that somebody can send in another's name.
#[test]
fn who_forges_an_address_has_it_sent_ten_short_answers_a_second_whichever_way_they_go() {
    for (first, ip, headers, ratio_max) in [(0, "192.0.2.1", 20 + 8, 175), (4, "2001:db8:7::1", 40 + 8, 205)] {
        let mut world = world();
        let (mut answers, mut most) = (0, 0);
        for number in 0..10_000u16 {
            let mut from = at(first + number % 4);
            from.path.remote = SocketAddr::new(ip.parse().unwrap(), 1024 + number);
            let way = [response_port(2000 + number), padding(0)][usize::from(number) % 2].clone();
            let attributes = [change(number as u8 & 0b110), way];
            let request = raw(method::BINDING, world.transaction(), &attributes[..usize::from(number) % 3]);
            let _ = world.say(from, &request);
            for (path, answer) in world.take() {
                answers += 1;
                most = most.max((answer.len() + headers) * 100 / (request.len() + headers));
                assert_eq!(path.remote.ip(), from.path.remote.ip());
            }
        }
        assert_eq!((answers, most), (10, ratio_max), "{ip}");
    }
}
