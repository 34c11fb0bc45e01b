//! A file mapped into memory, read-only. The only `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, read when first touched.
///
/// The file must stay as it is while it is mapped: a program that shortens it in place makes the next access fault.
/// Everything that bertha writes goes to a new file that is then renamed, which leaves an existing map untouched.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and only ever handed out as `&[u8]`. That nobody changes or truncates the file
        // meanwhile cannot be enforced by any program; it is the documented condition of mapping weights.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(MappedFile { map })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that these pages may leave memory; the next access reads them again from the file.
    ///
    /// Advice only: where the system has no such call, nothing happens.
    pub(crate) fn release(&self, range: Range<usize>) {
        if range.is_empty() || range.end > self.map.len() {
            return;
        }
        #[cfg(unix)]
        {
            // SAFETY: the range is inside the map. On a map of a file that was never written to, MADV_DONTNEED drops
            // pages that the next access reads again from the same file, so every `&[u8]` into it keeps its content.
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
            // Refused advice costs memory, not correctness: there is nothing to report to the caller.
            drop(advised);
        }
    }
}
