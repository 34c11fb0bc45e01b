//! Ranks that train together: sums over all of them, in an order that is always the same.
//!
//! [`Local`] is one process by itself; [`Threads`] are ranks in one process. A sum is taken in the order
//! of the ranks, so that it has the same bits on every rank and in every run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::TrainError;

/// What a rank can do with the others. All ranks must make the same calls in the same order.
pub trait Collective: Send {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world(&self) -> usize;

    /// Replaces `values` on every rank by their sum over the ranks.
    ///
    /// # Errors
    /// [`TrainError::Collective`] when ranks bring different numbers of values or make different calls,
    /// or one is gone.
    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), TrainError>;

    /// Replaces `values` on every rank by those of rank `root`.
    ///
    /// # Errors
    /// As [`Collective::all_reduce_sum`], and when there is no rank `root`.
    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), TrainError>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// As [`Collective::all_reduce_sum`].
    fn barrier(&mut self) -> Result<(), TrainError>;
}

/// A single rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Collective for Local {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_sum(&mut self, _: &mut [f32]) -> Result<(), TrainError> {
        Ok(())
    }

    fn broadcast(&mut self, _: &mut [f32], root: usize) -> Result<(), TrainError> {
        check_root(0, 1, root)
    }

    fn barrier(&mut self) -> Result<(), TrainError> {
        Ok(())
    }
}

fn check_root(rank: usize, world: usize, root: usize) -> Result<(), TrainError> {
    match root < world {
        true => Ok(()),
        false => Err(TrainError::Collective {
            rank,
            world,
            problem: format!("values were asked of rank {root}"),
        }),
    }
}

/// A call that all ranks must make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Sum(usize),
    Broadcast(usize, usize),
    Barrier,
}

/// One of several ranks in this process, each to be used by a thread of its own.
///
/// A rank that is dropped, for whatever reason, makes every call of the others fail instead of wait.
///
/// ```
/// use bertha_train::collective::{Collective, Threads};
///
/// let sums: Vec<f32> = std::thread::scope(|scope| {
///     let ranks = Threads::new(2).into_iter().map(|mut rank| {
///         scope.spawn(move || {
///             let mut values = [rank.rank() as f32 + 1.0];
///             rank.all_reduce_sum(&mut values).unwrap();
///             values[0]
///         })
///     });
///     let ranks: Vec<_> = ranks.collect();
///     ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
/// });
/// assert_eq!(sums, [3.0, 3.0]);
/// ```
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What each rank that arrived brought.
    brought: Vec<Option<Vec<f32>>>,
    /// The call of the first that arrived.
    call: Option<Call>,
    /// The outcome, and how many ranks have yet to take it.
    outcome: Option<(Arc<Vec<f32>>, usize)>,
    /// Why nothing works any more.
    broken: Option<String>,
}

impl Threads {
    /// All `world` ranks, by their numbers.
    pub fn new(world: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            world,
            state: Mutex::new(State {
                brought: vec![None; world],
                call: None,
                outcome: None,
                broken: None,
            }),
            changed: Condvar::new(),
        });
        let rank = |rank| Self {
            rank,
            shared: Arc::clone(&shared),
        };
        (0..world).map(rank).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A rank that panicked is dropped, which breaks the others in an orderly way.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, problem: String) -> TrainError {
        TrainError::Collective {
            rank: self.rank,
            world: self.shared.world,
            problem,
        }
    }

    /// Waits until `ready` or until something is broken.
    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'s, State>, TrainError> {
        loop {
            if ready(&state) {
                return Ok(state);
            }
            if let Some(problem) = &state.broken {
                return Err(self.error(problem.clone()));
            }
            let woken = self.shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Meets the other ranks; the last to arrive computes what all take.
    fn meet(&self, call: Call, values: Vec<f32>) -> Result<Arc<Vec<f32>>, TrainError> {
        // The outcome of the call before must have been taken by all.
        let mut state = self.wait(self.lock(), |state| state.outcome.is_none())?;
        if let Some(problem) = &state.broken {
            return Err(self.error(problem.clone()));
        }
        match state.call {
            Some(first) if first != call => {
                let problem = format!("ranks do not do the same: {first:?} and {call:?}");
                state.broken = Some(problem.clone());
                self.shared.changed.notify_all();
                return Err(self.error(problem));
            }
            _ => state.call = Some(call),
        }
        state.brought[self.rank] = Some(values);
        if state.brought.iter().all(Option::is_some) {
            let mut brought = state.brought.iter_mut().map(Option::take);
            let outcome = match call {
                Call::Broadcast(_, root) => brought.nth(root).flatten(),
                _ => brought.next().flatten().map(|mut sum| {
                    for values in brought.by_ref().flatten() {
                        for (sum, value) in sum.iter_mut().zip(values) {
                            *sum += value;
                        }
                    }
                    sum
                }),
            };
            state.brought.fill(None);
            state.call = None;
            state.outcome = Some((Arc::new(outcome.unwrap_or_default()), self.shared.world));
            self.shared.changed.notify_all();
        }
        let mut state = self.wait(state, |state| state.outcome.is_some())?;
        let Some((outcome, left)) = &mut state.outcome else {
            return Err(self.error("there is no outcome".into()));
        };
        let taken = Arc::clone(outcome);
        *left -= 1;
        if *left == 0 {
            state.outcome = None;
            self.shared.changed.notify_all();
        }
        Ok(taken)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.lock();
        let problem = format!("rank {} is gone", self.rank);
        state.broken.get_or_insert(problem);
        self.shared.changed.notify_all();
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.world
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), TrainError> {
        let sum = self.meet(Call::Sum(values.len()), values.to_vec())?;
        values.copy_from_slice(&sum);
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), TrainError> {
        check_root(self.rank, self.shared.world, root)?;
        let brought = match self.rank == root {
            true => values.to_vec(),
            false => Vec::new(),
        };
        let found = self.meet(Call::Broadcast(values.len(), root), brought)?;
        values.copy_from_slice(&found);
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), TrainError> {
        self.meet(Call::Barrier, Vec::new()).map(drop)
    }
}

/// The least bytes of a bucket: less is dominated by the call.
pub const BUCKET_LEAST: usize = 4 << 20;
/// The most bytes of a bucket, unless a single parameter has more.
pub const BUCKET_MOST: usize = 25 << 20;

/// Groups parameters (by index) into buckets whose gradients are summed in one call, in reverse order:
/// gradients are ready from the last layer to the first. A bucket is closed once it has
/// [`BUCKET_LEAST`] bytes, and before it would have more than [`BUCKET_MOST`].
pub fn plan_buckets(elements: &[usize]) -> Vec<Vec<usize>> {
    let mut buckets = Vec::new();
    let (mut bucket, mut bytes) = (Vec::new(), 0usize);
    for (index, &count) in elements.iter().enumerate().rev() {
        let size = count.saturating_mul(size_of::<f32>());
        let full = bytes >= BUCKET_LEAST || bytes.saturating_add(size) > BUCKET_MOST;
        if full && !bucket.is_empty() {
            buckets.push(std::mem::take(&mut bucket));
            bytes = 0;
        }
        bucket.push(index);
        bytes = bytes.saturating_add(size);
    }
    if !bucket.is_empty() {
        buckets.push(bucket);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every rank on a thread of its own; gives what each gave.
    fn run<T: Send>(world: usize, work: impl Fn(Threads) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let ranks: Vec<_> = Threads::new(world)
                .into_iter()
                .map(|rank| scope.spawn(move || work(rank)))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_have_the_same_bits_everywhere() {
        // Sums that depend on their order.
        let value =
            |rank: usize, i: usize| ((rank * 31 + i) as f32).sin() * 10f32.powi(rank as i32 * 3);
        let mut expected = vec![0.0f32; 100];
        for (i, sum) in expected.iter_mut().enumerate() {
            *sum = value(0, i);
            for rank in 1..4 {
                *sum += value(rank, i);
            }
        }
        for _ in 0..20 {
            let found = run(4, |mut rank| {
                let mut values: Vec<f32> = (0..100).map(|i| value(rank.rank(), i)).collect();
                rank.all_reduce_sum(&mut values).unwrap();
                rank.barrier().unwrap();
                values
            });
            assert!(found.iter().all(|values| *values == expected));
        }
    }

    #[test]
    fn calls_follow_each_other() {
        let found = run(3, |mut rank| {
            let mut total = 0.0;
            for round in 0..200 {
                let mut values = [rank.rank() as f32 + round as f32];
                rank.all_reduce_sum(&mut values).unwrap();
                rank.broadcast(&mut values, round % 3).unwrap();
                total += values[0];
            }
            total
        });
        let expected: f32 = (0..200).map(|round| 3.0 + 3.0 * round as f32).sum();
        assert_eq!(found, [expected; 3]);
    }

    #[test]
    fn a_broadcast_is_the_roots() {
        let found = run(3, |mut rank| {
            let mut values = [rank.rank() as f32; 2];
            rank.broadcast(&mut values, 2).unwrap();
            assert!(rank.broadcast(&mut values, 3).is_err());
            values
        });
        assert_eq!(found, [[2.0; 2]; 3]);
    }

    #[test]
    fn ranks_that_differ_do_not_hang() {
        let errors = run(2, |mut rank| {
            let mut values = vec![0.0; 1 + rank.rank()];
            rank.all_reduce_sum(&mut values).unwrap_err().to_string()
        });
        let named = |error: &String| error.contains("Sum(1)") || error.contains("is gone");
        assert!(errors.iter().all(named), "{errors:?}");
    }

    #[test]
    fn a_rank_that_is_gone_is_noticed() {
        let errors = run(3, |mut rank| match rank.rank() {
            1 => String::new(),
            _ => rank.barrier().unwrap_err().to_string(),
        });
        assert!(errors[0].contains("is gone"), "{errors:?}");
    }

    #[test]
    fn one_rank_is_enough() {
        let mut values = [1.0];
        Local.all_reduce_sum(&mut values).unwrap();
        Local.broadcast(&mut values, 0).unwrap();
        Local.barrier().unwrap();
        assert!(Local.broadcast(&mut values, 1).is_err());
        let found = run(1, |mut rank| {
            let mut values = [2.0];
            rank.all_reduce_sum(&mut values).unwrap();
            values[0]
        });
        assert_eq!(found, [2.0]);
    }

    #[test]
    fn buckets_run_backwards_and_are_neither_small_nor_large() {
        // BERT-base: word table, then 12 layers of 16 parameters.
        let mut elements = vec![30522 * 768, 512 * 768, 2 * 768, 768, 768];
        for _ in 0..12 {
            for size in [
                768 * 768,
                768 * 768,
                768 * 768,
                768 * 768,
                768 * 3072,
                3072 * 768,
            ] {
                elements.extend([size, 768]);
            }
            elements.extend([768; 4]);
        }
        let buckets = plan_buckets(&elements);
        let all: Vec<usize> = buckets.concat();
        assert_eq!(all, (0..elements.len()).rev().collect::<Vec<_>>());
        let bytes = |bucket: &Vec<usize>| bucket.iter().map(|&i| 4 * elements[i]).sum::<usize>();
        for bucket in &buckets {
            assert!(bytes(bucket) <= BUCKET_MOST || bucket.len() == 1);
        }
        // All but the last, and what stands before the word table, are large enough.
        let small = buckets
            .iter()
            .filter(|bucket| bytes(bucket) < BUCKET_LEAST)
            .count();
        assert!(small <= 2, "{small}");
        assert!(plan_buckets(&[]).is_empty());
        assert_eq!(plan_buckets(&[usize::MAX, 1]), [[1], [0]]);
    }
}
