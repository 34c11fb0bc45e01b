//! What a forward pass runs with: kernels, threads and recycled buffers.

use std::sync::Arc;

use bertha_kernels::{Exec, KernelError};
use bertha_tensor::{DType, Pool, Tensor};

use crate::AutogradError;

/// The resources of one user of the engine: an instruction set, a thread budget, a buffer pool.
///
/// Cheap to clone (clones share all three) and safe to use from several threads at once. Results do
/// not depend on the number of threads.
#[derive(Clone)]
pub struct Session {
    exec: Arc<Exec>,
    pool: Pool,
}

impl Session {
    /// A session with a budget of `threads` threads (the caller's included), or by default one per
    /// physical core that the process may use.
    ///
    /// # Errors
    /// When `BERTHA_ISA` names an instruction set that is unknown or that this machine lacks.
    pub fn new(threads: Option<usize>) -> Result<Self, KernelError> {
        Ok(Self::from_exec(Exec::new(threads)?))
    }

    /// A session over a given [`Exec`].
    pub fn from_exec(exec: Exec) -> Self {
        Self {
            exec: Arc::new(exec),
            pool: Pool::default(),
        }
    }

    /// The kernels' instruction set and threads.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The pool that intermediate tensors come from and return to.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// An f32 tensor of `shape` from the pool, its contents unspecified.
    pub(crate) fn scratch(&self, shape: &[usize]) -> Result<Tensor, AutogradError> {
        Ok(Tensor::scratch_in(&self.pool, DType::F32, shape)?)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("isa", &self.exec.isa())
            .field("threads", &self.exec.threads())
            .finish_non_exhaustive()
    }
}
