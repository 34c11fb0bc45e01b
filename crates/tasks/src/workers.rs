//! Threads for tokenizing, started by the first work that is worth them.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Less text than this is tokenized before other threads would have started: about a millisecond.
const LEAST_BYTES: usize = 32 << 10;

/// A thread pool of a fixed budget, the caller's thread included.
pub(crate) struct Workers {
    threads: usize,
    pool: OnceLock<Option<ThreadPool>>,
}

impl Workers {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads,
            pool: OnceLock::new(),
        }
    }

    /// The pool, where `texts` texts of `bytes` bytes together are worth it.
    pub(crate) fn worth(&self, texts: usize, bytes: usize) -> Option<&ThreadPool> {
        if self.threads < 2 || texts < 2 || bytes < LEAST_BYTES {
            return None;
        }
        self.pool.get_or_init(|| self.start()).as_ref()
    }

    fn start(&self) -> Option<ThreadPool> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("bertha-tokenize-{i}"))
            .build();
        pool.inspect_err(|error| tracing::warn!("tokenizing on one thread: {error}"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_work_starts_no_threads() {
        let workers = Workers::new(3);
        assert!(workers.worth(1, 1 << 30).is_none());
        assert!(workers.worth(1000, LEAST_BYTES - 1).is_none());
        assert!(workers.pool.get().is_none());
        let pool = workers.worth(2, LEAST_BYTES).unwrap();
        assert_eq!(pool.current_num_threads(), 3);
        assert!(Workers::new(1).worth(1000, 1 << 30).is_none());
    }
}
