//! Rings between threads: each has one sender and one receiver, so many threads take many rings.

use rtrb::{Consumer, Producer, RingBuffer};

/// A ring from each of one kind of thread to each of another.
pub(super) struct Mesh<T> {
    /// By sender, then receiver.
    producers: Vec<Vec<Option<Producer<T>>>>,
    /// By receiver, then sender.
    consumers: Vec<Vec<Option<Consumer<T>>>>,
}

impl<T> Mesh<T> {
    pub(super) fn new(senders: usize, receivers: usize, capacity: usize) -> Self {
        let mut producers: Vec<Vec<_>> = (0..senders).map(|_| Vec::new()).collect();
        let mut consumers: Vec<Vec<_>> = (0..receivers).map(|_| Vec::new()).collect();
        for from in &mut producers {
            for to in &mut consumers {
                let (producer, consumer) = RingBuffer::new(capacity);
                from.push(Some(producer));
                to.push(Some(consumer));
            }
        }
        Self { producers, consumers }
    }

    pub(super) fn producers(&mut self, sender: usize) -> Vec<Producer<T>> {
        self.producers.get_mut(sender).into_iter().flatten().filter_map(Option::take).collect()
    }

    pub(super) fn consumers(&mut self, receiver: usize) -> Vec<Consumer<T>> {
        self.consumers.get_mut(receiver).into_iter().flatten().filter_map(Option::take).collect()
    }
}
