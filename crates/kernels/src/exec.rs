//! What an operation runs with: an instruction set and a thread team.

use std::fmt;

use crate::isa::Isa;
use crate::team::Team;
use crate::{KernelError, default_threads};

/// More threads than this are taken for a mistake.
const MOST_THREADS: usize = 4096;

/// An instruction set and a thread budget: the argument of every operation.
///
/// Results do not depend on the number of threads.
pub struct Exec {
    isa: Isa,
    team: Team,
}

impl Exec {
    /// The best instruction set of this machine, or the one that `BERTHA_ISA` names, with `threads`
    /// threads (the caller's included), or by default [`default_threads`].
    ///
    /// # Errors
    /// When `BERTHA_ISA` names an instruction set that is unknown or that this machine lacks, or
    /// `threads` is 0 or beyond 4096.
    pub fn new(threads: Option<usize>) -> Result<Self, KernelError> {
        let threads = threads.unwrap_or_else(default_threads);
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(KernelError::Threads {
                found: threads,
                most: MOST_THREADS,
            });
        }
        Ok(Self::with_isa(Isa::from_env()?, threads))
    }

    /// A given instruction set and number of threads (at least 1).
    pub fn with_isa(isa: Isa, threads: usize) -> Self {
        Self {
            isa,
            team: Team::new(threads),
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The thread budget, the caller's thread included.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Runs `task(0)`, …, `task(tasks − 1)` on the team.
    pub(crate) fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.team.run(tasks, &task);
    }

    /// Runs `task` on rows `first..end` of `data` (rows of `width` values, and the values of those rows), in
    /// pieces for the team. `work` is about the number of operations a row takes.
    pub(crate) fn for_rows(
        &self,
        data: &mut [f32],
        width: usize,
        work: usize,
        task: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
    ) {
        if data.is_empty() {
            return;
        }
        let rows = data.len() / width;
        let shared = SharedMut::new(data);
        self.for_ranges(rows, work, |range| {
            // SAFETY: the ranges of different pieces are disjoint, and each piece is run once.
            let values = unsafe { shared.slice(range.start * width..range.end * width) };
            task(range, values);
        });
    }

    /// Runs `task` on disjoint ranges that make up `0..count`, in pieces for the team. `work` is about the
    /// number of operations that one of the `count` takes.
    pub(crate) fn for_ranges(
        &self,
        count: usize,
        work: usize,
        task: impl Fn(std::ops::Range<usize>) + Sync,
    ) {
        if count == 0 {
            return;
        }
        let pieces = self.pieces(count, work);
        let each = count.div_ceil(pieces);
        self.parallel(count.div_ceil(each), |piece| {
            task(piece * each..count.min((piece + 1) * each));
        });
    }

    /// Into how many pieces to cut `rows` rows of `work` operations each: enough to share, not so
    /// small that forking costs more than it gains.
    fn pieces(&self, rows: usize, work: usize) -> usize {
        const LEAST_WORK: usize = 1 << 15;
        let worth = rows.saturating_mul(work) / LEAST_WORK;
        match self.threads() {
            1 => 1,
            // Several pieces a thread: one that is held up does not hold up the rest.
            threads => worth.min(4 * threads).clamp(1, rows.max(1)),
        }
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("isa", &self.isa)
            .field("threads", &self.threads())
            .finish()
    }
}

/// A slice of which several threads write disjoint parts.
pub(crate) struct SharedMut<'a, T = f32> {
    data: *mut T,
    len: usize,
    lives: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out by `slice` alone, whose caller answers for their being disjoint.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            lives: std::marker::PhantomData,
        }
    }

    /// The address of a value, to prefetch it, or to write what no slice of values describes.
    #[inline(always)]
    pub(crate) fn address(&self, at: usize) -> *const T {
        self.data.wrapping_add(at)
    }

    /// The values of a range.
    ///
    /// # Safety
    /// No two slices that live at the same time may overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, range: std::ops::Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice that this was made of; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_each_visited_once() {
        for threads in [1, 2, 5] {
            let exec = Exec::with_isa(Isa::portable(), threads);
            for rows in [0, 1, 2, 7, 100] {
                let mut data = vec![0.0; rows * 3];
                exec.for_rows(&mut data, 3, 1 << 20, |range, values| {
                    assert_eq!(values.len(), range.len() * 3);
                    for (row, values) in range.zip(values.chunks_exact_mut(3)) {
                        values
                            .iter_mut()
                            .for_each(|value| *value += row as f32 + 1.0);
                    }
                });
                let expected = |(i, value): (usize, &f32)| *value == (i / 3 + 1) as f32;
                assert!(data.iter().enumerate().all(expected));
            }
        }
    }

    #[test]
    fn budgets_out_of_range_are_refused() {
        for threads in [0, 1 << 20] {
            let error = Exec::new(Some(threads)).unwrap_err().to_string();
            assert!(error.contains(&threads.to_string()), "{error}");
        }
    }
}
