//! What a forward pass runs with: kernels, threads and recycled buffers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bertha_kernels::{Dropout, Exec, KernelError, PackedFormat};
use bertha_tensor::{DType, Pool, Tensor};

use crate::saved::Saved;
use crate::{AutogradError, Var};

/// The resources of one user of the engine: an instruction set, a thread budget, a buffer pool.
///
/// Cheap to clone (clones share all three) and safe to use from several threads at once. Results do
/// not depend on the number of threads.
#[derive(Clone)]
pub struct Session {
    exec: Arc<Exec>,
    pool: Pool,
    /// Whether operations on tracked values are recorded.
    records: bool,
    training: Option<Arc<Training>>,
    /// Whether models keep only the inputs of their layers for the backward pass.
    checkpoints: bool,
    observer: Option<Observer>,
    explanation: Option<Arc<Explanation>>,
    taps: Option<Taps>,
    precision: Precision,
    /// The tensor that was kept last, and what was kept of it.
    latest: Arc<Mutex<Option<(Tensor, Saved)>>>,
}

/// What products are computed of, and what is kept for the backward pass. Parameters, gradients, sums, norms, softmax and
/// losses are f32 in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32: matrix products keep to a relative error of 10⁻⁵ in Frobenius' norm. Where the machine has a matrix unit for bf16, they
    /// are products of two bf16 for each value, which are several times faster than f32 multiply-adds.
    #[default]
    F32,
    /// f32 by multiply-adds of f32 on any machine.
    F32Strict,
    /// Linear layers, and attention where gradients are wanted or the machine multiplies bf16, multiply operands rounded to bf16 and
    /// sum in f32; activations are kept for the backward pass, and the weights of linear layers for products, as bf16: half the
    /// memory.
    Bf16,
    /// For inference alone: weights of linear layers that are float in the file get 8 bits with a scale for each row as they are
    /// loaded, their inputs with a scale for each token as they come. Sums are exact.
    Int8,
}

impl Precision {
    /// All.
    pub const ALL: [Self; 4] = [Self::F32, Self::F32Strict, Self::Bf16, Self::Int8];

    /// Whether values stay f32.
    pub fn is_f32(self) -> bool {
        matches!(self, Self::F32 | Self::F32Strict)
    }

    /// Its name, `f32`, `f32-strict`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F32Strict => "f32-strict",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The precision of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == name)
    }

    /// The format of the weights of linear layers that stay float.
    pub fn packed_format(self) -> PackedFormat {
        match self {
            Self::F32 | Self::Int8 => PackedFormat::F32,
            Self::F32Strict => PackedFormat::F32Strict,
            Self::Bf16 => PackedFormat::Bf16,
        }
    }
}

/// Which kernels ran in forward passes: of linear layers and attention, by operation and kernel.
#[derive(Debug, Default)]
pub struct Explanation(Mutex<BTreeMap<(&'static str, &'static str), Ran>>);

/// How often a kernel ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Calls.
    pub calls: u64,
    /// Multiply-adds of forward passes, of linear layers; 0 of others.
    pub multiply_adds: u64,
}

impl Explanation {
    /// What ran so far, as `(operation, kernel, count)`. A kernel's name is that of [`bertha_kernels::operations`].
    pub fn ran(&self) -> Vec<(&'static str, &'static str, Ran)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(&(op, kernel), &ran)| (op, kernel, ran))
            .collect()
    }
}

/// Takes the queries, keys and values of each layer that runs, `[T,3·H·D]`, in the order of the layers.
pub type Taps = Arc<Mutex<Vec<Var>>>;

/// What watches the inputs of a model's linear layers: the names of the weights that a layer holds, and its input
/// `[T, in]`.
pub type Observer = Arc<dyn Fn(&[String], &Tensor) + Send + Sync>;

/// What dropout in one training pass is drawn from.
#[derive(Debug)]
struct Training {
    seed: u64,
    step: u32,
    /// The number of the pass's next dropout.
    site: AtomicU32,
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
            records: true,
            training: None,
            checkpoints: false,
            observer: None,
            explanation: None,
            taps: None,
            precision: Precision::F32,
            latest: Arc::default(),
        }
    }

    /// The same resources for passes in another precision. Models that learn take it from pass to pass.
    #[must_use]
    pub fn with_precision(&self, precision: Precision) -> Self {
        Self {
            precision,
            ..self.clone()
        }
    }

    /// What products are computed of.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What was kept last.
    pub(crate) fn latest(&self) -> &Mutex<Option<(Tensor, Saved)>> {
        &self.latest
    }

    /// The same resources for passes that keep only the inputs of a model's layers for the backward pass, which computes
    /// the rest again: less memory, more time, the same gradients.
    #[must_use]
    pub fn checkpointing(&self, on: bool) -> Self {
        Self {
            checkpoints: on,
            ..self.clone()
        }
    }

    /// The same resources for passes whose linear layers show their inputs to `observer`, as calibration wants.
    #[must_use]
    pub fn observing(&self, observer: Observer) -> Self {
        Self {
            observer: Some(observer),
            ..self.clone()
        }
    }

    /// The same resources for passes that count which kernels run, and the counts: a proof of which path ran.
    #[must_use]
    pub fn explaining(&self) -> (Self, Arc<Explanation>) {
        let explanation = Arc::new(Explanation::default());
        let session = Self {
            explanation: Some(Arc::clone(&explanation)),
            ..self.clone()
        };
        (session, explanation)
    }

    /// Counts a kernel that runs, where somebody wants to know.
    pub(crate) fn tell(&self, op: &'static str, kernel: &'static str, multiply_adds: usize) {
        if let Some(Explanation(counts)) = self.explanation.as_deref() {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let ran = counts.entry((op, kernel)).or_default();
            ran.calls += 1;
            ran.multiply_adds += multiply_adds as u64;
        }
    }

    /// The same resources for passes whose attention layers also give their queries, keys and values to `taps`, as
    /// distillation wants them.
    #[must_use]
    pub fn tapping(&self, taps: Taps) -> Self {
        Self {
            taps: Some(taps),
            ..self.clone()
        }
    }

    /// Gives a layer's queries, keys and values to whoever taps.
    pub fn tap(&self, qkv: &Var) {
        if let Some(taps) = &self.taps {
            let mut taps = taps.lock().unwrap_or_else(PoisonError::into_inner);
            taps.push(qkv.clone());
        }
    }

    /// Whether somebody observes the inputs of linear layers, or taps what attention reads.
    pub fn is_observed(&self) -> bool {
        self.observer.is_some() || self.taps.is_some()
    }

    /// Shows a linear layer's input to whoever observes.
    pub fn observe(&self, weights: &[String], input: &Var) {
        if let Some(observer) = &self.observer {
            observer(weights, input.tensor());
        }
    }

    /// Whether models keep only the inputs of their layers; see [`Session::checkpointing`].
    pub fn checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// The same pass, of which nothing is recorded: dropout goes on where it is.
    pub(crate) fn unrecorded(&self) -> Self {
        Self {
            records: false,
            ..self.clone()
        }
    }

    /// A pass of its own that begins where this one is now: its dropout will be the same.
    pub(crate) fn replayed(&self) -> Self {
        let training = self.training.as_ref().map(|training| {
            Arc::new(Training {
                seed: training.seed,
                step: training.step,
                site: AtomicU32::new(training.site.load(Ordering::Relaxed)),
            })
        });
        Self {
            training,
            ..self.clone()
        }
    }

    /// The same resources for a training pass: dropout is on. Its masks are a function of `seed` and `step`
    /// alone, so every pass needs a step of its own (with gradient accumulation, every micro-batch).
    #[must_use]
    pub fn training(&self, seed: u64, step: u32) -> Self {
        let training = Training {
            seed,
            step,
            site: AtomicU32::new(0),
        };
        Self {
            training: Some(Arc::new(training)),
            ..self.clone()
        }
    }

    /// The same resources for evaluation: nothing is recorded for a backward pass, and dropout is off.
    #[must_use]
    pub fn no_grad(&self) -> Self {
        Self {
            records: false,
            training: None,
            ..self.clone()
        }
    }

    /// Whether dropout is on.
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// Whether operations on tracked values are recorded.
    pub(crate) fn records(&self) -> bool {
        self.records
    }

    /// The next dropout of this training pass; `None` where nothing is to be dropped.
    pub(crate) fn dropout(&self, probability: f32) -> Option<Dropout> {
        let training = self.training.as_ref().filter(|_| probability > 0.0)?;
        Some(Dropout {
            probability,
            seed: training.seed as u32,
            stream: (training.seed >> 32) as u32 ^ DROPOUT_STREAM,
            site: training.site.fetch_add(1, Ordering::Relaxed),
            step: training.step,
        })
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

/// What tells dropout's random numbers from those of other uses of the same seed.
const DROPOUT_STREAM: u32 = 0x6472_6f70;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("isa", &self.exec.isa())
            .field("threads", &self.exec.threads())
            .finish_non_exhaustive()
    }
}
