//! The real model that some tests need, which is too large for the repository.

use std::path::PathBuf;

use bertha::Precision;
use bertha::kernels::Isa;

/// The folder of all-MiniLM-L6-v2, as `scripts/fetch-model.sh` leaves it.
///
/// # Panics
/// When it is not there: a test that cannot run has failed.
pub fn minilm() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let models =
        std::env::var_os("BERTHA_MODELS").map_or_else(|| root.join("models"), PathBuf::from);
    let folder = models.join("all-MiniLM-L6-v2");
    assert!(
        folder.join("model.safetensors").is_file(),
        "this test needs the real model in {}: run scripts/fetch-model.sh once (84 MB)",
        folder.display()
    );
    folder
}

/// Whether a thousand texts would take minutes: bytes one by one, as the portable tier multiplies them. (All tiers give the same
/// sums, which the kernels' tests hold them to.)
pub fn is_too_slow(precision: Precision) -> bool {
    precision == Precision::Int8 && Isa::from_env() == Ok(Isa::portable())
}
