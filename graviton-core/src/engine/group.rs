//! Groups of calls that share work: a call that arrives while a batch runs joins the next one.
//!
//! A commit costs one sync for any number of blobs, and a batch of small files one flush. No call waits for a
//! group to fill: the first caller leads at once, with the callers that are waiting then.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::blocking;
use crate::error::{Code, Error, Result};

type Batch<T, R> = dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Vec<R>> + Send>> + Send + Sync;

/// A place where calls gather.
pub(super) struct Group<T, R>(Arc<Shared<T, R>>);

struct Shared<T, R> {
    waiting: Mutex<Waiting<T, R>>,
    run: Box<Batch<T, R>>,
    weigh: fn(&T) -> usize,
    limits: Limits,
}

/// How much a group does at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The largest weight of a batch, except for a single member that weighs more.
    pub(super) weight: usize,
    /// How many batches run at once: more than one where a batch computes while another waits for the disk.
    pub(super) batches: usize,
}

type Member<T, R> = (T, oneshot::Sender<R>);

struct Waiting<T, R> {
    members: Vec<Member<T, R>>,
    leaders: usize,
}

impl<T: Send + 'static, R: Send + 'static> Group<T, R> {
    /// A group whose batches `run` processes; its answers are in the order of the members.
    pub(super) fn new<F>(
        weigh: fn(&T) -> usize,
        limits: Limits,
        run: impl Fn(Vec<T>) -> F + Send + Sync + 'static,
    ) -> Group<T, R>
    where
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        let run = Box::new(move |batch| Box::pin(run(batch)) as Pin<Box<dyn Future<Output = _> + Send>>);
        let waiting = Mutex::new(Waiting { members: Vec::new(), leaders: 0 });
        Group(Arc::new(Shared { waiting, run, weigh, limits }))
    }

    /// Takes part in the next batch. If the future is dropped, the member is still processed.
    pub(super) async fn join(&self, member: T) -> Result<R> {
        let mut answers = self.join_all(vec![member]).await?;
        answers.pop().ok_or_else(|| Error::new(Code::Internal, "a batch has no answer for its member"))
    }

    /// Like [`join`](Group::join) for several members; the answers are in their order.
    pub(super) async fn join_all(&self, members: Vec<T>) -> Result<Vec<R>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = members.iter().map(|_| oneshot::channel()).unzip();
        if let Some(leader) = self.0.enter(members.into_iter().zip(senders)) {
            // On a thread that may block, the first batch needs no separate task. A task would be two thread
            // switches, many times the other cost of a small put.
            if blocking::may_block_here() {
                Leading(Some(Box::pin(leader.run()))).await;
            } else {
                tokio::spawn(leader.run_rest());
            }
        }
        let mut answers = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            answers.push(receiver.await.map_err(|_| closed())?);
        }
        Ok(answers)
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the runtime that drives the store is shutting down")
}

impl<T: Send + 'static, R: Send + 'static> Shared<T, R> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<T, R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds members. If fewer leaders exist than allowed, the caller becomes one.
    fn enter(self: &Arc<Self>, members: impl Iterator<Item = Member<T, R>>) -> Option<Leader<T, R>> {
        let mut waiting = self.waiting();
        waiting.members.extend(members);
        if waiting.leaders == self.limits.batches {
            return None;
        }
        waiting.leaders += 1;
        Some(Leader { shared: Arc::clone(self), resigned: false })
    }

    /// The next batch; empty if another leader has taken all waiting members.
    fn take_batch(&self) -> Vec<Member<T, R>> {
        let mut waiting = self.waiting();
        let mut weight = 0;
        let count = waiting.members.iter().take_while(|(member, _)| {
            weight += (self.weigh)(member);
            weight <= self.limits.weight
        });
        let count = count.count().max(1).min(waiting.members.len());
        let rest = waiting.members.split_off(count);
        std::mem::replace(&mut waiting.members, rest)
    }
}

/// The duty to run batches until nobody waits. It must not get lost, because other callers depend on it.
struct Leader<T, R> {
    shared: Arc<Shared<T, R>>,
    resigned: bool,
}

impl<T: Send + 'static, R: Send + 'static> Leader<T, R> {
    /// Runs one batch; more of them run in a task.
    async fn run(mut self) {
        if self.run_one().await {
            tokio::spawn(self.run_rest());
        }
    }

    async fn run_rest(mut self) {
        while self.run_one().await {}
    }

    /// Runs one batch. Returns whether there is more to do; if not, this leader stops being one.
    async fn run_one(&mut self) -> bool {
        let (members, senders): (Vec<T>, Vec<_>) = self.shared.take_batch().into_iter().unzip();
        if !members.is_empty() {
            let answers = (self.shared.run)(members).await;
            for (sender, answer) in senders.into_iter().zip(answers) {
                // The member's future may have been dropped.
                let _ = sender.send(answer);
            }
        }
        let mut waiting = self.shared.waiting();
        if waiting.members.is_empty() {
            waiting.leaders -= 1;
            self.resigned = true;
        }
        !self.resigned
    }
}

/// A running batch. It continues in a task if its leading caller ends its call, because other callers depend
/// on it.
struct Leading(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Leading {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(batch) = &mut self.0 else { return Poll::Ready(()) };
        batch.as_mut().poll(context).map(|()| self.0 = None)
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if let Some(batch) = self.0.take()
            && !std::thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(batch);
        }
    }
}

impl<T, R> Drop for Leader<T, R> {
    /// The runtime of this leader ended, or a batch panicked. Its members get an error instead of waiting for
    /// ever.
    fn drop(&mut self) {
        if !self.resigned {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.leaders -= 1;
            if waiting.leaders == 0 {
                waiting.members.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_that_come_together_share_batches_and_get_their_own_answers() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let group = Arc::new(Group::new(
            |_| 1,
            Limits { weight: 10, batches: 1 },
            move |batch: Vec<usize>| {
                seen.lock().unwrap().push(batch.len());
                async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    batch.into_iter().map(|number| number * 2).collect()
                }
            },
        ));
        let calls: Vec<_> = (0..50)
            .map(|number| {
                let group = Arc::clone(&group);
                tokio::spawn(async move { (number, group.join(number).await.unwrap()) })
            })
            .collect();
        for call in calls {
            let (number, answer) = call.await.unwrap();
            assert_eq!(answer, number * 2);
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 50);
        assert!(sizes.iter().all(|size| *size <= 10));
        assert!(sizes.len() < 50, "nobody shared: {sizes:?}");
    }

    #[tokio::test]
    async fn a_dropped_caller_does_not_stop_the_others() {
        let group = Arc::new(Group::new(
            |_| 1,
            Limits { weight: 10, batches: 1 },
            |batch: Vec<u8>| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                batch
            },
        ));
        let leader = {
            let group = Arc::clone(&group);
            tokio::spawn(async move { group.join(1).await })
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        leader.abort();
        assert_eq!(group.join(2).await.unwrap(), 2);
    }

    #[test]
    fn a_leader_whose_runtime_ends_leaves_nobody_waiting() {
        let (begun, has_begun) = std::sync::mpsc::channel();
        let group = Arc::new(Group::new(
            |_| 1,
            Limits { weight: 1, batches: 1 },
            move |batch: Vec<u8>| {
                let begun = begun.clone();
                async move {
                    if batch[0] == 1 {
                        begun.send(()).unwrap();
                        std::future::pending::<()>().await;
                    }
                    batch
                }
            },
        ));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (stuck, follower) = (Arc::clone(&group), Arc::clone(&group));
        runtime.spawn(async move { stuck.join(1).await });
        has_begun.recv().unwrap();
        let other = tokio::runtime::Runtime::new().unwrap();
        let follower = other.spawn(async move { follower.join(2).await });
        while group.0.waiting().members.is_empty() {
            std::thread::yield_now();
        }
        runtime.shutdown_background();
        assert_eq!(other.block_on(follower).unwrap().unwrap_err().code(), Code::Closed);
        assert_eq!(other.block_on(group.join(3)).unwrap(), 3);
    }
}
