//! Recycled, 64-byte-aligned memory: a loop that makes and drops tensors of the same sizes allocates nothing.
//!
//! A [`Pool`] keeps the buffers that its tensors gave back, in lists by size class (four classes to a doubling, so at
//! most a quarter of a buffer is spare), and hands out the smallest that fits, up to twice the class asked for. What it
//! keeps is bounded in bytes; beyond the bound the buffer that has lain unused longest goes back to the system.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bertha_kernels::AlignedBytes;

use crate::{Element, TensorError};

/// No buffer is smaller, and every size is a multiple of it.
const CACHE_LINE: usize = 64;

/// A thread-safe source of recycled buffers. Cloning it clones the handle, not the memory.
///
/// Buffers return to the pool when the last tensor on them is dropped; when the last handle of the pool is dropped,
/// what it kept is freed and buffers still in use are freed at their own end.
///
/// ```
/// use bertha_tensor::{DType, Pool, Tensor};
///
/// let pool = Pool::default();
/// for _ in 0..100 {
///     let hidden = Tensor::zeros_in(&pool, DType::F32, &[128, 384])?;
///     assert_eq!(hidden.shape(), [128, 384]);
/// }
/// assert_eq!(pool.stats().misses, 1);
/// # Ok::<(), bertha_tensor::TensorError>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What a pool has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Requests served from what was kept.
    pub hits: u64,
    /// Requests that allocated.
    pub misses: u64,
    /// Bytes kept for later requests, now.
    pub kept_bytes: usize,
    /// Bytes of buffers in use, now.
    pub used_bytes: usize,
    /// The most bytes that were in use at a time, since the pool was made or [`Pool::reset_peak`].
    pub peak_used_bytes: usize,
}

impl PoolStats {
    fn use_more(&mut self, bytes: usize) {
        self.used_bytes += bytes;
        self.peak_used_bytes = self.peak_used_bytes.max(self.used_bytes);
    }
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free buffers by their full size. The front of each queue has lain there longest.
    free: BTreeMap<usize, VecDeque<(u64, AlignedBytes)>>,
    clock: u64,
    stats: PoolStats,
}

impl Default for Pool {
    /// A pool that keeps at most 1 GiB.
    fn default() -> Pool {
        Pool::new(1 << 30)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("limit", &self.shared.limit)
            .field("stats", &self.stats())
            .finish()
    }
}

/// The smallest buffer size made for `len` bytes: 64, 80, 96, 112, 128, 160, ... rounded to whole cache lines.
fn size_class(len: usize) -> usize {
    let len = len.max(CACHE_LINE);
    let step = (len.next_power_of_two() / 8).max(CACHE_LINE);
    len.div_ceil(step).saturating_mul(step)
}

impl Pool {
    /// A pool that keeps at most `limit` bytes for later requests. What is in use is not counted.
    pub fn new(limit: usize) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                limit,
                state: Mutex::default(),
            }),
        }
    }

    /// A buffer of `len` bytes whose content is unspecified (what its last user left, or zeros).
    pub fn take(&self, len: usize) -> Buffer {
        Buffer::take(&Arc::downgrade(&self.shared), len)
    }

    /// A buffer of `len` zero bytes.
    pub fn take_zeroed(&self, len: usize) -> Buffer {
        Buffer::take_zeroed(&Arc::downgrade(&self.shared), len)
    }

    /// What the pool has done so far and holds now.
    pub fn stats(&self) -> PoolStats {
        self.shared.state().stats
    }

    /// Begins to measure the most that is in use from now on.
    pub fn reset_peak(&self) {
        let mut state = self.shared.state();
        state.stats.peak_used_bytes = state.stats.used_bytes;
    }

    /// Frees everything kept.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        let freed = std::mem::take(&mut state.free);
        state.stats.kept_bytes = 0;
        drop(state);
        drop(freed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and a counter off by one would be harmless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept buffer of at least `class` bytes, if there is one.
    fn reuse(&self, class: usize) -> Option<AlignedBytes> {
        let mut state = self.state();
        let most = class.saturating_mul(2);
        let found = state
            .free
            .range_mut(class..=most)
            .find_map(|(_, queue)| queue.pop_back());
        match found {
            Some((_, bytes)) => {
                state.stats.hits += 1;
                state.stats.kept_bytes -= bytes.len();
                state.stats.use_more(bytes.len());
                Some(bytes)
            }
            None => {
                state.stats.misses += 1;
                state.stats.use_more(class);
                None
            }
        }
    }

    fn give_back(&self, bytes: AlignedBytes) {
        let size = bytes.len();
        let mut freed = Vec::new();
        let mut state = self.state();
        state.stats.used_bytes = state.stats.used_bytes.saturating_sub(size);
        if size > self.limit {
            return;
        }
        while state.stats.kept_bytes + size > self.limit {
            let oldest = state
                .free
                .values_mut()
                .filter(|queue| !queue.is_empty())
                .min_by_key(|queue| queue[0].0);
            let Some((_, bytes)) = oldest.and_then(VecDeque::pop_front) else {
                break;
            };
            state.stats.kept_bytes -= bytes.len();
            freed.push(bytes);
        }
        state.clock += 1;
        let stamp = state.clock;
        state.stats.kept_bytes += size;
        state
            .free
            .entry(size)
            .or_default()
            .push_back((stamp, bytes));
        // Unmapping large buffers takes time that others need not wait for.
        drop(state);
        drop(freed);
    }
}

/// 64-byte-aligned bytes that return to their [`Pool`], if they came from one, when dropped.
pub struct Buffer {
    /// `None` only while being dropped.
    bytes: Option<AlignedBytes>,
    len: usize,
    pool: Weak<Shared>,
}

impl Buffer {
    /// `len` zero bytes that belong to no pool.
    pub fn zeroed(len: usize) -> Buffer {
        Buffer {
            bytes: Some(AlignedBytes::zeroed(len)),
            len,
            pool: Weak::new(),
        }
    }

    fn take(pool: &Weak<Shared>, len: usize) -> Buffer {
        let Some(shared) = pool.upgrade() else {
            return Buffer::zeroed(len);
        };
        let class = size_class(len);
        let bytes = shared
            .reuse(class)
            .unwrap_or_else(|| AlignedBytes::zeroed(class));
        Buffer {
            bytes: Some(bytes),
            len,
            pool: Weak::clone(pool),
        }
    }

    fn take_zeroed(pool: &Weak<Shared>, len: usize) -> Buffer {
        let Some(shared) = pool.upgrade() else {
            return Buffer::zeroed(len);
        };
        let class = size_class(len);
        // Fresh memory is zero already; only what had a user before needs clearing.
        let bytes = match shared.reuse(class) {
            Some(mut bytes) => {
                bytes.as_bytes_mut()[..len].fill(0);
                bytes
            }
            None => AlignedBytes::zeroed(class),
        };
        Buffer {
            bytes: Some(bytes),
            len,
            pool: Weak::clone(pool),
        }
    }

    /// Another buffer, of `len` bytes and unspecified content, from where this one came.
    pub(crate) fn sibling(&self, len: usize) -> Buffer {
        Buffer::take(&self.pool, len)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .as_ref()
            .map_or(&[], |bytes| &bytes.as_bytes()[..self.len])
    }

    /// The bytes, to write.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
            .as_mut()
            .map_or(&mut [], |bytes| &mut bytes.as_bytes_mut()[..self.len])
    }

    /// The bytes as elements. A remainder shorter than an element is left out.
    ///
    /// # Errors
    /// [`TensorError::InvalidBool`] if read as `bool` and a byte is neither 0 nor 1.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        let whole = self.len - self.len % size_of::<T>();
        bytemuck::checked::try_cast_slice(&self.as_bytes()[..whole])
            .map_err(|_| TensorError::InvalidBool)
    }

    /// The bytes as elements, to write. A remainder shorter than an element is left out.
    ///
    /// # Errors
    /// [`TensorError::InvalidBool`] if used as `bool` and a byte is neither 0 nor 1.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        let whole = self.len - self.len % size_of::<T>();
        bytemuck::checked::try_cast_slice_mut(&mut self.as_bytes_mut()[..whole])
            .map_err(|_| TensorError::InvalidBool)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(bytes), Some(pool)) = (self.bytes.take(), self.pool.upgrade()) {
            pool.give_back(bytes);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_a_quarter() {
        for len in (0..5000).chain([1 << 20, (1 << 20) + 1, 3_000_001]) {
            let class = size_class(len);
            assert!(class >= len && class.is_multiple_of(64));
            assert!(class <= len.max(64) + len / 4 + 64, "{len} -> {class}");
            assert_eq!(size_class(class), class, "a class must be its own class");
        }
    }

    #[test]
    fn a_steady_loop_misses_only_at_first() {
        let pool = Pool::default();
        for _ in 0..50 {
            let a = pool.take(1000);
            let b = pool.take(40_000);
            let c = pool.take_zeroed(1000);
            assert_eq!((a.len(), b.len(), c.len()), (1000, 40_000, 1000));
        }
        let stats = pool.stats();
        assert_eq!((stats.misses, stats.hits), (3, 147));
    }

    #[test]
    fn a_ragged_loop_misses_rarely() {
        let pool = Pool::default();
        for i in 0..1000_usize {
            let tokens = 100 + i * 7919 % 400;
            drop(pool.take(tokens * 384 * 4));
        }
        // One chain of sizes from 100 to 500 tokens has ten classes; each can miss once.
        assert!(pool.stats().misses <= 10, "{:?}", pool.stats());
    }

    #[test]
    fn zeroed_means_zero_also_the_second_time() {
        let pool = Pool::default();
        pool.take(256).as_bytes_mut().fill(7);
        let again = pool.take_zeroed(200);
        assert_eq!(pool.stats().hits, 1);
        assert!(again.as_bytes().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let pool = Pool::new(1024);
        let (old, new) = (pool.take(512), pool.take(512));
        let (old_at, new_at) = (old.as_bytes().as_ptr(), new.as_bytes().as_ptr());
        drop(old);
        drop(new);
        assert_eq!(pool.stats().kept_bytes, 1024);
        drop(pool.take(192)); // evicts `old`: 192 more do not fit
        assert_eq!(pool.stats().kept_bytes, 704);
        let survivor = pool.take(512);
        assert_eq!(survivor.as_bytes().as_ptr(), new_at);
        assert_ne!(survivor.as_bytes().as_ptr(), old_at);
        drop(pool.take(4096));
        assert_eq!(
            pool.stats().kept_bytes,
            192,
            "a buffer above the limit is never kept"
        );
        pool.clear();
        assert_eq!(pool.stats().kept_bytes, 0);
    }

    #[test]
    fn buffers_outlive_their_pool() {
        let pool = Pool::default();
        let mut buffer = pool.take(100);
        drop(pool);
        buffer.as_bytes_mut().fill(1);
        assert_eq!(buffer.sibling(10).len(), 10);
    }

    #[test]
    fn many_threads_share_a_pool() {
        let pool = Pool::default();
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for size in 0..200 {
                        let mut buffer = pool.take(64 + size);
                        buffer.as_bytes_mut().fill(thread);
                        assert!(buffer.as_bytes().iter().all(|&byte| byte == thread));
                    }
                });
            }
        });
        let stats = pool.stats();
        assert_eq!(stats.hits + stats.misses, 8 * 200);
    }
}
