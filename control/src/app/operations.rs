//! What operators ask of TURN, on its way through the actor: an answer of several workers is put together here.

use ringmain_shared::turn::{TurnAllocation, TurnCommand, TurnEvent};
use tokio::sync::oneshot;

use crate::turn::{AdminAnswer, AdminQuestion, Users};

/// Questions under way, and what is known of users.
#[derive(Debug, Default)]
pub(super) struct Operations {
    asked: Vec<Asked>,
    last_request: u64,
    users: Users,
}

/// One list of allocations that grows.
#[derive(Debug)]
struct Asked {
    request: u64,
    missing: usize,
    allocations: Vec<TurnAllocation>,
    answer: oneshot::Sender<AdminAnswer>,
}

impl Operations {
    /// Begins to answer; the command is what the data plane must be told.
    pub(super) fn ask(
        &mut self,
        question: AdminQuestion,
        answer: oneshot::Sender<AdminAnswer>,
        worker_count: usize,
    ) -> Option<TurnCommand> {
        self.asked.retain(|asked| !asked.answer.is_closed());
        match question {
            AdminQuestion::Allocations if self.asked.len() < ASKED_MAX => {
                self.last_request += 1;
                let request = self.last_request;
                self.asked.push(Asked { request, missing: worker_count, allocations: Vec::new(), answer });
                Some(TurnCommand::Snapshot { request })
            }
            // Dropping the answer says so.
            AdminQuestion::Allocations => None,
            AdminQuestion::Kill(allocation) => {
                let _ = answer.send(AdminAnswer::Done);
                Some(TurnCommand::Kill { allocation })
            }
            AdminQuestion::Drain(on) => {
                let _ = answer.send(AdminAnswer::Done);
                Some(TurnCommand::Drain(on))
            }
            AdminQuestion::Configure(spec) => {
                let _ = answer.send(AdminAnswer::Done);
                Some(TurnCommand::Configure(spec))
            }
        }
    }

    /// Takes in what the data plane said.
    pub(super) fn handle(&mut self, event: &TurnEvent) {
        self.users.handle(event);
        match event {
            TurnEvent::Opened(allocation) => {
                tracing::debug!(id = %allocation.id, user = ?allocation.user, client = %allocation.client, "allocated");
            }
            TurnEvent::Ended { allocation, reason } => {
                tracing::debug!(id = %allocation.id, user = ?allocation.user, ?reason, "allocation ended");
            }
            TurnEvent::Refreshed(_) => {}
            TurnEvent::Snapshot { request, allocations, .. } => self.collect(*request, allocations),
        }
    }

    fn collect(&mut self, request: u64, allocations: &[TurnAllocation]) {
        let Some(index) = self.asked.iter().position(|asked| asked.request == request) else { return };
        let asked = &mut self.asked[index];
        asked.allocations.extend_from_slice(allocations);
        asked.missing = asked.missing.saturating_sub(1);
        if asked.missing == 0 {
            let Asked { allocations, answer, .. } = self.asked.swap_remove(index);
            let _ = answer.send(AdminAnswer::Allocations(allocations));
        }
    }

    /// What users have relayed.
    pub(super) fn users(&self) -> &Users {
        &self.users
    }
}

/// Lists under way at a time.
const ASKED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_shared::id::WorkerIndex;

    #[test]
    fn a_list_is_answered_when_every_worker_has_spoken() {
        let mut operations = Operations::default();
        let (sender, mut answer) = oneshot::channel();
        let command = operations.ask(AdminQuestion::Allocations, sender, 2);
        assert_eq!(command, Some(TurnCommand::Snapshot { request: 1 }));
        for worker in 0..2 {
            assert!(answer.try_recv().is_err(), "worker {worker} has not spoken");
            let worker = WorkerIndex(worker);
            operations.handle(&TurnEvent::Snapshot { request: 1, worker, allocations: Vec::new() });
        }
        assert_eq!(answer.try_recv(), Ok(AdminAnswer::Allocations(Vec::new())));
    }
}
