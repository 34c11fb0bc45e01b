//! The tensor itself: construction, typed access, copies.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::checked;

use crate::dtype::dispatch;
use crate::shape::{Layout, checked_numel};
use crate::storage::{Mapped, Storage};
use crate::{Buffer, DType, Element, Pool, TensorError};

/// An n-dimensional array of one [`DType`], shared by reference count.
///
/// Cloning and taking views copy no elements. Writing goes through [`as_mut_slice`](Tensor::as_mut_slice), which first
/// copies what others share. See the crate's head for where elements can live.
///
/// ```
/// use bertha_tensor::Tensor;
///
/// let x = Tensor::from_vec(vec![1_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// let column = x.select(1, 2)?;
/// assert_eq!(column.to_vec::<f32>()?, [3.0, 6.0]);
/// assert_eq!(x.transpose(0, 1)?.contiguous().as_slice::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), bertha_tensor::TensorError>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    pub(crate) storage: Arc<Storage>,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl Tensor {
    fn new(storage: Storage, dtype: DType, shape: &[usize]) -> Tensor {
        Tensor {
            storage: Arc::new(storage),
            dtype,
            layout: Layout::row_major(shape),
        }
    }

    /// A tensor that takes over `values`, in row-major order, without copying. Its alignment is the `Vec`'s.
    ///
    /// # Errors
    /// [`TensorError::ElementCount`] if their number is not the product of `shape`.
    pub fn from_vec<T: Element>(values: Vec<T>, shape: &[usize]) -> Result<Tensor, TensorError> {
        check_count(shape, T::DTYPE, values.len())?;
        Ok(Tensor::new(Storage::Vec(T::wrap(values)), T::DTYPE, shape))
    }

    /// A tensor with a copy of `values`, given in row-major order, aligned to 64 bytes.
    ///
    /// # Errors
    /// [`TensorError::ElementCount`] if their number is not the product of `shape`.
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize]) -> Result<Tensor, TensorError> {
        check_count(shape, T::DTYPE, values.len())?;
        let mut buffer = Buffer::zeroed(size_of_val(values));
        buffer
            .as_bytes_mut()
            .copy_from_slice(bytemuck::cast_slice(values));
        Ok(Tensor::new(Storage::Owned(buffer), T::DTYPE, shape))
    }

    /// A tensor that takes over the bytes of `buffer`.
    ///
    /// # Errors
    /// [`TensorError::BufferSize`] if the size differs, [`TensorError::InvalidBool`] if `dtype` is `bool` and a byte is
    /// neither 0 nor 1.
    pub fn from_buffer(
        buffer: Buffer,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor, TensorError> {
        let expected = checked_numel(shape, dtype)? * dtype.size();
        if buffer.len() != expected {
            return Err(TensorError::BufferSize {
                shape: shape.to_vec(),
                dtype,
                expected,
                found: buffer.len(),
            });
        }
        if dtype == DType::Bool {
            buffer.as_slice::<bool>()?;
        }
        Ok(Tensor::new(Storage::Owned(buffer), dtype, shape))
    }

    /// A part of a mapped file; the caller has checked size and content (no `bool`: those bytes are not trusted).
    pub(crate) fn from_mapped(mapped: Mapped, dtype: DType, shape: &[usize]) -> Tensor {
        debug_assert_ne!(dtype, DType::Bool);
        Tensor::new(Storage::Mapped(mapped), dtype, shape)
    }

    /// Zeros (`false` for `bool`), aligned to 64 bytes.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape exceeds the address space.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let bytes = checked_numel(shape, dtype)? * dtype.size();
        Ok(Tensor::new(
            Storage::Owned(Buffer::zeroed(bytes)),
            dtype,
            shape,
        ))
    }

    /// Zeros in memory of `pool`, which returns there with the last tensor on it.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape exceeds the address space.
    pub fn zeros_in(pool: &Pool, dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let bytes = checked_numel(shape, dtype)? * dtype.size();
        Ok(Tensor::new(
            Storage::Owned(pool.take_zeroed(bytes)),
            dtype,
            shape,
        ))
    }

    /// Unspecified values in memory of `pool`, for an operation that writes them all.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape exceeds the address space.
    pub fn scratch_in(pool: &Pool, dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        // What the last user left may be no valid bool.
        if dtype == DType::Bool {
            return Tensor::zeros_in(pool, dtype, shape);
        }
        let bytes = checked_numel(shape, dtype)? * dtype.size();
        Ok(Tensor::new(Storage::Owned(pool.take(bytes)), dtype, shape))
    }

    /// `value` everywhere.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape exceeds the address space.
    pub fn full<T: Element>(value: T, shape: &[usize]) -> Result<Tensor, TensorError> {
        let mut tensor = Tensor::zeros(T::DTYPE, shape)?;
        tensor.as_mut_slice::<T>()?.fill(value);
        Ok(tensor)
    }

    /// A tensor for a result made from this one: from the same pool if there is one, of unspecified but valid content.
    pub(crate) fn sibling(&self, dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let bytes = checked_numel(shape, dtype)? * dtype.size();
        let mut buffer = self.storage.sibling(bytes);
        if dtype == DType::Bool {
            buffer.as_bytes_mut().fill(0);
        }
        Ok(Tensor::new(Storage::Owned(buffer), dtype, shape))
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Distance of neighbours along each dimension, in elements. Never negative; 0 where broadcast.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// Shape, strides and offset together.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Bytes of the elements, `numel · dtype.size()`.
    pub fn size_in_bytes(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// Whether the elements lie in one run, in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether the elements lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(*self.storage, Storage::Mapped(_))
    }

    /// Lets the pages of a mapped tensor leave memory, for use after its weights have been packed; of a view, such as
    /// the rows that were packed last, only the pages from its first to its last element. They are read from the file
    /// again when touched again; values do not change. Nothing happens to a tensor that is not mapped.
    pub fn release_pages(&self) {
        let Range { start, end } = self.layout.span();
        let size = self.dtype.size();
        self.storage.release_pages(start * size..end * size);
    }

    pub(crate) fn expect_dtype(&self, expected: DType) -> Result<(), TensorError> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(TensorError::DType {
            shape: self.shape().to_vec(),
            found: self.dtype,
            expected,
        })
    }

    fn expect_contiguous(&self) -> Result<(), TensorError> {
        if self.is_contiguous() {
            return Ok(());
        }
        Err(TensorError::NotContiguous {
            shape: self.shape().to_vec(),
            strides: self.strides().to_vec(),
        })
    }

    /// The elements of the storage from this tensor's first one on, to be read by its [`strides`](Tensor::strides);
    /// empty if the tensor is. Copies nothing (with the one exception of [`as_slice`](Tensor::as_slice)).
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn elements_from_offset<T: Element>(&self) -> Result<&[T], TensorError> {
        self.expect_dtype(T::DTYPE)?;
        if self.numel() == 0 {
            return Ok(&[]);
        }
        Ok(&self.storage.elements()?[self.layout.offset()..])
    }

    /// The elements in row-major order, without copying (one exception: a mapped tensor whose address in the file is
    /// not aligned for `T` is copied at the first call and kept).
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type, [`TensorError::NotContiguous`] if its elements do not
    /// lie in order.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.expect_dtype(T::DTYPE)?;
        self.expect_contiguous()?;
        Ok(&self.elements_from_offset()?[..self.numel()])
    }

    /// The elements in row-major order as little-endian bytes, without copying whatever their alignment.
    ///
    /// # Errors
    /// [`TensorError::NotContiguous`] if the elements do not lie in order.
    pub fn as_bytes(&self) -> Result<&[u8], TensorError> {
        self.expect_contiguous()?;
        if self.numel() == 0 {
            return Ok(&[]);
        }
        let start = self.layout.offset() * self.dtype.size();
        Ok(&self.storage.bytes()[start..start + self.size_in_bytes()])
    }

    /// The elements in row-major order, to write. Copies first if another tensor shares them, if they are mapped from
    /// a file, or if they do not lie in order; afterwards this tensor is their only owner.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        self.expect_dtype(T::DTYPE)?;
        let writable = Arc::get_mut(&mut self.storage).is_some_and(|storage| storage.is_writable());
        if !writable || !self.is_contiguous() {
            *self = self.copy();
        }
        let (start, len) = (self.layout.offset(), self.numel());
        if len == 0 {
            return Ok(&mut []);
        }
        let storage = Arc::get_mut(&mut self.storage)
            .expect("a storage that was just checked or copied has one owner");
        let elements = storage
            .elements_mut()?
            .expect("the dtype matches and the storage is not mapped");
        Ok(&mut elements[start..start + len])
    }

    /// The elements in row-major order, copied, whatever the layout.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        if !self.is_contiguous() {
            return Ok(self.view::<T>()?.iter().copied().collect());
        }
        self.expect_dtype(T::DTYPE)?;
        let bytes = self.as_bytes()?;
        match checked::try_cast_slice(bytes) {
            Ok(elements) => Ok(elements.to_vec()),
            Err(_) => bytes
                .chunks_exact(size_of::<T>())
                .map(|chunk| {
                    checked::try_pod_read_unaligned(chunk).map_err(|_| TensorError::InvalidBool)
                })
                .collect(),
        }
    }

    /// The value of a tensor of exactly one element, of any rank.
    ///
    /// # Errors
    /// [`TensorError::NotOneElement`] if it has none or several, [`TensorError::DType`] if it holds another type.
    pub fn item<T: Element>(&self) -> Result<T, TensorError> {
        self.expect_dtype(T::DTYPE)?;
        if self.numel() != 1 {
            return Err(TensorError::NotOneElement {
                shape: self.shape().to_vec(),
            });
        }
        self.element_at(0)
    }

    /// The `index`-th element in row-major order; the caller has checked type and bounds.
    fn element_at<T: Element>(&self, index: usize) -> Result<T, TensorError> {
        let start = self.layout.position(index) * size_of::<T>();
        let bytes = &self.storage.bytes()[start..start + size_of::<T>()];
        checked::try_pod_read_unaligned(bytes).map_err(|_| TensorError::InvalidBool)
    }

    /// The same values in row-major order: this tensor (shared, not copied) if they lie so already.
    pub fn contiguous(&self) -> Tensor {
        if self.is_contiguous() {
            self.clone()
        } else {
            self.copy()
        }
    }

    /// A row-major copy that shares nothing with this tensor, from the same pool if there is one.
    pub fn copy(&self) -> Tensor {
        // Every layout's element count was checked when it was made.
        let mut buffer = self.storage.sibling(self.size_in_bytes());
        match self.dtype.size() {
            1 => self.gather_bytes::<1>(&mut buffer),
            2 => self.gather_bytes::<2>(&mut buffer),
            4 => self.gather_bytes::<4>(&mut buffer),
            _ => self.gather_bytes::<8>(&mut buffer),
        }
        Tensor::new(Storage::Owned(buffer), self.dtype, self.shape())
    }

    fn gather_bytes<const SIZE: usize>(&self, to: &mut Buffer) {
        let (src, _) = self.storage.bytes().as_chunks::<SIZE>();
        let (dst, _) = to.as_bytes_mut().as_chunks_mut::<SIZE>();
        self.layout.gather(src, dst);
    }
}

fn check_count(shape: &[usize], dtype: DType, found: usize) -> Result<(), TensorError> {
    let expected = checked_numel(shape, dtype)?;
    if expected != found {
        return Err(TensorError::ElementCount {
            shape: shape.to_vec(),
            expected,
            found,
        });
    }
    Ok(())
}

/// How many values `Display` and `Debug` show.
const SHOWN: usize = 8;

impl fmt::Display for Tensor {
    /// Dtype, shape and the first values: `f32 [2, 3]: 1, 2, 3, 4, 5, 6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}:", self.dtype, self.shape())?;
        let numel = self.numel();
        for index in 0..numel.min(SHOWN) {
            let separator = if index == 0 { " " } else { ", " };
            dispatch!(self.dtype, T => match self.element_at::<T>(index) {
                Ok(value) => write!(f, "{separator}{value}")?,
                Err(_) => write!(f, "{separator}?")?,
            });
        }
        if numel > SHOWN {
            f.write_str(", ...")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({self}")?;
        if !self.is_contiguous() {
            write!(f, "; strides {:?}", self.strides())?;
        }
        f.write_str(")")
    }
}
