use super::*;
use crate::io::{Path, SocketIndex};

fn path(port: u16) -> Path {
    Path { socket: SocketIndex(0), remote: ([127, 0, 0, 1], port).into() }
}

fn shapes(sends: &[(u16, usize)]) -> Vec<(u16, usize, usize, usize)> {
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    for &(port, size) in sends {
        let mut slot = batch.reserve(path(port), 1500.max(size)).expect("room");
        slot.bytes_mut()[..size].fill(port as u8);
        slot.commit(size);
    }
    for train in batch.trains() {
        assert!(
            batch.bytes(train).iter().all(|&b| b == train.path.remote.port() as u8),
            "bytes of another train in {train:?}"
        );
        assert_eq!(train.segment_ranges().map(|range| range.len()).sum::<usize>(), train.size);
        assert_eq!(train.segment_ranges().count(), train.segments);
    }
    batch.trains().iter().map(|t| (t.path.remote.port(), t.segments, t.segment_size, t.size)).collect()
}

#[test]
fn equal_sizes_to_one_destination_make_one_train() {
    assert_eq!(shapes(&[(1, 100), (1, 100), (1, 100)]), [(1, 3, 100, 300)]);
}

#[test]
fn a_shorter_segment_ends_its_train_and_a_longer_one_begins_another() {
    assert_eq!(shapes(&[(1, 100), (1, 99), (1, 99)]), [(1, 2, 100, 199), (1, 1, 99, 99)]);
    assert_eq!(shapes(&[(1, 100), (1, 101), (1, 101)]), [(1, 1, 100, 100), (1, 2, 101, 202)]);
}

#[test]
fn another_destination_begins_another_train() {
    assert_eq!(shapes(&[(1, 9), (2, 9), (1, 9)]), [(1, 1, 9, 9), (2, 1, 9, 9), (1, 1, 9, 9)]);
}

#[test]
fn a_train_has_no_more_segments_and_bytes_than_the_kernel_takes() {
    assert_eq!(shapes(&[(1, 10); 65]), [(1, 64, 10, 640), (1, 1, 10, 10)]);
    assert_eq!(shapes(&[(1, 1400); 47]), [(1, 46, 1400, 64_400), (1, 1, 1400, 1400)]);
}

#[test]
fn a_dropped_slot_leaves_nothing_behind() {
    let mut batch = TxBatch::new(1000, 8);
    batch.reserve(path(1), 600).expect("room").commit(100);
    batch.reserve(path(2), 900).expect("room").bytes_mut().fill(9);
    batch.reserve(path(1), 600).expect("room").commit(100);
    assert_eq!(batch.trains().len(), 1);
    assert_eq!(batch.datagrams(), 2);
}

#[test]
fn a_full_batch_gives_no_slot_until_it_is_cleared() {
    let mut batch = TxBatch::new(1000, 2);
    assert!(batch.reserve(path(1), 1001).is_err());
    batch.reserve(path(1), 1000).expect("room").commit(900);
    assert!(batch.reserve(path(1), 101).is_err());
    batch.reserve(path(1), 100).expect("room").commit(50);
    assert!(batch.reserve(path(2), 10).is_ok());
    batch.clear();
    batch.reserve(path(1), 1).expect("room").commit(1);
    batch.reserve(path(2), 1).expect("room").commit(1);
    assert!(batch.reserve(path(3), 1).is_err(), "two trains are the most");
    batch.clear();
    batch.lend();
    assert!(batch.reserve(path(3), 1).is_err(), "the kernel still reads it");
}

#[test]
fn a_batch_is_ripe_between_trains_and_never_within_one() {
    let mut batch = TxBatch::new(TX_ARENA_SIZE, TRAINS_PER_BATCH_MAX);
    let mut commit = |port, size| {
        let was_ripe = batch.is_ripe(&path(port));
        batch.reserve(path(port), size).expect("room").commit(size);
        was_ripe
    };
    let by_size: Vec<bool> = (0..16).flat_map(|port| [port; 8]).map(|port| commit(port, 1100)).collect();
    let first = by_size.iter().position(|&ripe| ripe).expect("140,800 bytes");
    assert_eq!(first, 15 * 8, "the first train behind 131,072 bytes");
    assert!(by_size[first + 1..].iter().all(|&ripe| !ripe), "its other segments are not held up");
    batch.clear();
    let mut commit = |port| {
        let was_ripe = batch.is_ripe(&path(port));
        batch.reserve(path(port), 100).expect("room").commit(100);
        was_ripe
    };
    assert!((0..64).all(|port| !commit(port)) && commit(64), "64 trains");
}

#[test]
fn a_received_datagram_is_changed_in_place() {
    let mut batch = RxBatch::new(4096);
    batch.push(100, 10, path(7));
    batch.push(200, 20, path(8));
    batch.bytes_mut(1).fill(9);
    assert_eq!((batch.len(), batch.bytes(0), batch.bytes(1)), (2, &[0; 10][..], &[9; 20][..]));
    assert_eq!(batch.path(1), path(8));
    batch.clear();
    assert!(batch.is_empty());
}
