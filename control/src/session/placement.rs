//! Which worker a transport goes to: a room's own until that is loaded, then its neighbours.

use std::net::SocketAddr;

use ringmain_shared::id::WorkerIndex;
use ringmain_shared::limits::TRANSPORTS_PER_WORKER_MAX;

/// The workers of the data plane, what SDP announces for each, and how many transports each has.
pub(super) struct Workers {
    candidates: Vec<Vec<SocketAddr>>,
    loads: Vec<usize>,
    spread_after: usize,
}

impl Workers {
    /// One worker for each list of candidates.
    pub(super) fn new(candidates: Vec<Vec<SocketAddr>>, spread_after: usize) -> Self {
        let loads = vec![0; candidates.len()];
        Self { candidates, loads, spread_after }
    }

    /// There is place for `count` more transports.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        self.transports() + count <= self.loads.len() * TRANSPORTS_PER_WORKER_MAX
    }

    /// The worker of a new room.
    pub(super) fn least_loaded(&self) -> WorkerIndex {
        let least = self.loads.iter().enumerate().min_by_key(|&(_, load)| load);
        WorkerIndex(least.map_or(0, |(index, _)| index as u16))
    }

    /// The worker of a new transport of a room that lives at `home`: the first from there on that is not loaded.
    pub(super) fn place(&self, home: WorkerIndex) -> WorkerIndex {
        let count = self.loads.len();
        (0..count)
            .map(|step| (usize::from(home.0) + step) % count)
            .find(|&index| self.loads[index] < self.spread_after)
            .map_or_else(|| self.least_loaded(), |index| WorkerIndex(index as u16))
    }

    /// What SDP announces for a worker.
    pub(super) fn candidates(&self, worker: WorkerIndex) -> Vec<SocketAddr> {
        self.candidates.get(usize::from(worker.0)).cloned().unwrap_or_default()
    }

    pub(super) fn opened(&mut self, worker: WorkerIndex) {
        if let Some(load) = self.loads.get_mut(usize::from(worker.0)) {
            *load += 1;
        }
    }

    pub(super) fn closed(&mut self, worker: WorkerIndex) {
        if let Some(load) = self.loads.get_mut(usize::from(worker.0)) {
            *load = load.saturating_sub(1);
        }
    }

    /// Transports of all workers.
    pub(super) fn transports(&self) -> usize {
        self.loads.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_stays_on_its_worker_until_that_is_loaded() {
        let mut workers = Workers::new(vec![Vec::new(); 3], 2);
        let mut placed = Vec::new();
        for _ in 0..8 {
            let worker = workers.place(WorkerIndex(1));
            workers.opened(worker);
            placed.push(worker.0);
        }
        assert_eq!(placed, [1, 1, 2, 2, 0, 0, 0, 1], "home, its neighbours, then the least loaded");
        assert_eq!(workers.least_loaded(), WorkerIndex(2));
        workers.closed(WorkerIndex(1));
        assert_eq!(workers.transports(), 7);
    }
}
