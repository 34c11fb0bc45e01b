//! What the kernels can refuse.

/// Why kernels cannot be set up as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no instruction set of that name.
    #[error("BERTHA_ISA is \"{found}\", which is no instruction set; known are {known}")]
    UnknownIsa {
        /// The name given.
        found: String,
        /// The names there are.
        known: String,
    },
    /// This machine lacks the instruction set.
    #[error("BERTHA_ISA is \"{found}\", which this machine lacks; it has {available}")]
    UnavailableIsa {
        /// The name given.
        found: String,
        /// The names of the instruction sets that this machine has.
        available: String,
    },
    /// The thread budget is out of range.
    #[error("the thread budget is {found}, expected 1 to {most}")]
    Threads {
        /// The budget asked for.
        found: usize,
        /// The largest budget.
        most: usize,
    },
}
