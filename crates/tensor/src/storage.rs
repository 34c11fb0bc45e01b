//! Where the elements of tensors live: owned and aligned, a `Vec` that was moved in, or a part of a mapped file.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytemuck::checked;
use half::{bf16, f16};

use crate::map::MappedFile;
use crate::{Buffer, Element, TensorError};

/// A `Vec` of any element type.
#[derive(Debug)]
pub enum TypedVec {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    Bool(Vec<bool>),
}

impl TypedVec {
    fn bytes(&self) -> &[u8] {
        match self {
            TypedVec::F32(vec) => bytemuck::cast_slice(vec),
            TypedVec::F64(vec) => bytemuck::cast_slice(vec),
            TypedVec::Bf16(vec) => bytemuck::cast_slice(vec),
            TypedVec::F16(vec) => bytemuck::cast_slice(vec),
            TypedVec::I64(vec) => bytemuck::cast_slice(vec),
            TypedVec::I32(vec) => bytemuck::cast_slice(vec),
            TypedVec::U8(vec) => vec,
            TypedVec::I8(vec) => bytemuck::cast_slice(vec),
            TypedVec::Bool(vec) => bytemuck::cast_slice(vec),
        }
    }
}

/// A part of a mapped file.
#[derive(Debug)]
pub(crate) struct Mapped {
    file: Arc<MappedFile>,
    range: Range<usize>,
    /// A copy, made when the part is asked for as a type that its address is not aligned for.
    aligned: OnceLock<Buffer>,
}

impl Mapped {
    /// The caller has checked that `range` lies within the file.
    pub(crate) fn new(file: Arc<MappedFile>, range: Range<usize>) -> Mapped {
        Mapped {
            file,
            range,
            aligned: OnceLock::new(),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    fn aligned(&self) -> &Buffer {
        self.aligned.get_or_init(|| {
            let mut copy = Buffer::zeroed(self.range.len());
            copy.as_bytes_mut().copy_from_slice(self.bytes());
            // From here on the copy is read: the map's pages need not stay in memory beside it.
            self.file.release(self.range.clone());
            copy
        })
    }
}

#[derive(Debug)]
pub(crate) enum Storage {
    Owned(Buffer),
    Vec(TypedVec),
    Mapped(Mapped),
}

impl Storage {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Owned(buffer) => buffer.as_bytes(),
            Storage::Vec(vec) => vec.bytes(),
            Storage::Mapped(mapped) => mapped.bytes(),
        }
    }

    /// The elements; the caller has checked that the storage was made for `T`.
    pub(crate) fn elements<T: Element>(&self) -> Result<&[T], TensorError> {
        let bytes = self.bytes();
        if bytes.is_empty() {
            return Ok(&[]);
        }
        match (checked::try_cast_slice(bytes), self) {
            (Ok(elements), _) => Ok(elements),
            (Err(_), Storage::Mapped(mapped)) => mapped.aligned().as_slice(),
            // Owned bytes and vectors are aligned, so only a byte that is no bool remains.
            (Err(_), _) => Err(TensorError::InvalidBool),
        }
    }

    pub(crate) fn is_writable(&self) -> bool {
        !matches!(self, Storage::Mapped(_))
    }

    /// The elements to write, `None` for a mapped file; the caller has checked that the storage was made for `T`.
    pub(crate) fn elements_mut<T: Element>(&mut self) -> Result<Option<&mut [T]>, TensorError> {
        match self {
            Storage::Owned(buffer) => buffer.as_mut_slice().map(Some),
            Storage::Vec(vec) => Ok(T::vec_mut(vec).map(Vec::as_mut_slice)),
            Storage::Mapped(_) => Ok(None),
        }
    }

    /// A buffer of `len` bytes and unspecified content, from the pool of this storage if it has one.
    pub(crate) fn sibling(&self, len: usize) -> Buffer {
        match self {
            Storage::Owned(buffer) => buffer.sibling(len),
            Storage::Vec(_) | Storage::Mapped(_) => Buffer::zeroed(len),
        }
    }

    /// Lets the pages of these bytes of a mapped part leave memory; nothing for the others.
    pub(crate) fn release_pages(&self, bytes: Range<usize>) {
        if let Storage::Mapped(mapped) = self {
            let from = mapped.range.start;
            mapped.file.release(from + bytes.start..from + bytes.end);
        }
    }
}
