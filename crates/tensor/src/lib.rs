//! Tensors of bertha: shape, dtype, storage, safetensors and ndarray interchange.
//!
//! A [`Tensor`] is *not* generic: its element type is a run-time [`DType`], so code that depends on this crate compiles
//! once. It is a view (shape, strides, offset: [`Layout`]) onto storage shared by reference count, so cloning and
//! viewing never copy elements. Storage is one of
//!
//! - **owned**: 64-byte-aligned bytes, recycled through a [`Pool`] when they came from one;
//! - **a `Vec`** moved in by the caller ([`Tensor::from_vec`], [`Tensor::from_ndarray`]), aligned as the `Vec` is;
//! - **mapped**: a part of a safetensors file ([`Checkpoint`]), read only when touched.
//!
//! Files: [`Checkpoint`] reads safetensors (one file, or shards with their index), [`save_safetensors`] writes them,
//! [`npy`] reads and writes NumPy arrays, and [`AtomicFile`] is how every file is written: beside its target, then
//! renamed.
//!
//! The file format: <https://github.com/huggingface/safetensors#format>.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

#[cfg(target_endian = "big")]
compile_error!(
    "bertha maps little-endian weight files as they are: big-endian targets are not supported"
);

mod atomic;
mod cast;
mod checkpoint;
mod dtype;
mod error;
mod header;
mod interop;
mod map;
pub mod npy;
mod pool;
mod save;
mod shape;
mod storage;
mod tensor;
mod view;

pub use atomic::AtomicFile;
pub use checkpoint::{Checkpoint, TensorInfo};
pub use dtype::{DType, Element};
pub use error::{FileError, TensorError};
pub use pool::{Buffer, Pool, PoolStats};
pub use save::save_safetensors;
pub use shape::Layout;
pub use tensor::Tensor;

/// The 16-bit float types, as the `half` crate defines them.
pub use half::{bf16, f16};
