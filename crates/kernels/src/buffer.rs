//! Memory aligned to cache lines.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The alignment: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// The alignment of large buffers: a huge page, which spares the processor most of its walks through the page table.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes from which on a buffer is large. What does not fill a huge page at its end stays in small ones.
const LARGE: usize = HUGE_PAGE;

/// Bytes whose first is at a multiple of 64, all of them initialised; of large ones in huge pages where the system has them.
pub struct AlignedBytes {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are owned and reached through `&self` and `&mut self` only, as a `Vec<u8>`'s are.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// When `len` is beyond the address space.
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        if len == 0 {
            // 64 is not null, and a dangling pointer is never read through at length 0.
            let data = NonNull::without_provenance(layout.align().try_into().expect("64 > 0"));
            return Self { data, len };
        }
        // SAFETY: the layout's size is not 0.
        let data = unsafe {
            match len < LARGE {
                true => alloc_zeroed(layout),
                false => alloc_huge(layout),
            }
        };
        match NonNull::new(data) {
            Some(data) => Self { data, len },
            None => handle_alloc_error(layout),
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `data` points to `len` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }

    fn layout(len: usize) -> Layout {
        let align = if len < LARGE { ALIGN } else { HUGE_PAGE };
        Layout::from_size_align(len, align).expect("a buffer fits the address space")
    }
}

/// Zeros, in huge pages where the system has them.
///
/// # Safety
/// The layout's size must not be 0.
unsafe fn alloc_huge(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    let data = unsafe { alloc(layout) };
    if !data.is_null() {
        #[cfg(target_os = "linux")]
        // SAFETY: advice on whole pages within memory that was just allocated, of which nothing has been touched. Where it is
        // refused, pages are small.
        unsafe {
            let whole = layout.size() / HUGE_PAGE * HUGE_PAGE;
            libc::madvise(data.cast(), whole, libc::MADV_HUGEPAGE);
        }
        // SAFETY: allocated with this size.
        unsafe { data.write_bytes(0, layout.size()) }
    }
    data
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `zeroed` allocated `data` with this very layout.
            unsafe { dealloc(self.data.as_ptr(), Self::layout(self.len)) }
        }
    }
}

/// Zeroed f32 values whose first is at a multiple of 64 bytes.
pub(crate) struct AlignedFloats(AlignedBytes);

impl AlignedFloats {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<f32>());
        Self(AlignedBytes::zeroed(
            bytes.expect("a buffer fits the address space"),
        ))
    }

    /// `len` times a value.
    pub(crate) fn filled(len: usize, value: f32) -> Self {
        let mut floats = Self::zeroed(len);
        floats.fill(value);
        floats
    }

    /// The bytes of all values.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bytes of all values, to be written.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }

    /// `len` values whose contents are unspecified: grows when it is too small.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.len() < len {
            *self = Self::zeroed(len.next_power_of_two());
        }
        &mut self[..len]
    }
}

impl Default for AlignedFloats {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl std::ops::Deref for AlignedFloats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: aligned to 64 bytes, initialised, and any bytes are an f32.
        unsafe { std::slice::from_raw_parts(self.0.data.as_ptr().cast(), self.0.len / 4) }
    }
}

impl std::ops::DerefMut for AlignedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.data.as_ptr().cast(), self.0.len / 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_zero_and_writable() {
        for len in [0, 1, 63, 64, 1000, LARGE + 5] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!((bytes.len(), bytes.is_empty()), (len, len == 0));
            assert_eq!(bytes.as_bytes().as_ptr().addr() % 64, 0);
            assert!(bytes.as_bytes().iter().all(|&byte| byte == 0));
            bytes.as_bytes_mut().fill(7);
            assert!(bytes.as_bytes().iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn floats_grow_and_keep_their_alignment() {
        let mut floats = AlignedFloats::zeroed(3);
        assert_eq!(&*floats, [0.0; 3]);
        floats.at_least(2).fill(1.0);
        assert_eq!(&*floats, [1.0, 1.0, 0.0]);
        assert_eq!(floats.at_least(100).len(), 100);
        assert_eq!(floats.as_ptr().addr() % 64, 0);
    }
}
