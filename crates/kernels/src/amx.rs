//! AMX: Intel's matrix unit, which multiplies tiles of 16 rows by 64 bytes.
//!
//! A thread has eight tile registers. An instruction multiplies 16 rows of one tile with 16 columns of another, along 32 bf16
//! or 64 bytes, and adds to the 16 × 16 sums of a third: 16,384 multiply-adds of bytes in 16 cycles, 32 times as many as
//! vectors of f32 do.
//!
//! The compiler knows neither the tiles nor (in its stable form) their instructions, so they stand here in assembly, a few at
//! a time. What the blocks share, the contents of the tile registers, the compiler cannot touch: it has no other use for them.
//!
//! Where the unit is: the CPU has it, the system saves its state (Linux from 5.16 on), and grants it to the process on
//! request. See "Intel Advanced Matrix Extensions" in the Intel 64 and IA-32 Architectures Software Developer's Manual, and
//! <https://docs.kernel.org/arch/x86/xstate.html>.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::simd::{Avx512Bf16, Kernel, Simd};

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Bytes of a tile's row.
pub(crate) const ROW_BYTES: usize = 64;

/// Bytes of a tile.
pub(crate) const TILE_BYTES: usize = TILE_ROWS * ROW_BYTES;

/// Rows, and columns, of the block that is computed at once: two tiles by two. Each tile that is loaded then is multiplied
/// twice, and four sums that do not wait for each other hide the latency of 52 cycles.
pub(crate) const BLOCK: usize = 2 * TILE_ROWS;

/// The sums of a block, row by row: f32, or i32 of bytes.
#[repr(C, align(64))]
pub(crate) struct BlockSums(pub(crate) [f32; BLOCK * BLOCK]);

impl BlockSums {
    pub(crate) fn new() -> Self {
        Self([0.0; BLOCK * BLOCK])
    }
}

/// The proof that this process may use AMX with bf16 and bytes, and that the machine has AVX-512 with BF16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Amx(Avx512Bf16);

impl Amx {
    /// The token, where the machine has the unit and the system grants it. Asks the system once.
    pub(crate) fn detect() -> Option<Self> {
        static DETECTED: OnceLock<Option<Amx>> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let vectors = Avx512Bf16::detect()?;
            (has_instructions() && system_saves_tiles() && system_grants_tiles())
                .then_some(Self(vectors))
        })
    }

    /// The vectors that such a machine has.
    #[inline(always)]
    pub(crate) fn vectors(self) -> Avx512Bf16 {
        self.0
    }

    /// Runs a kernel that uses tiles, with the tiles configured on this thread, and gives them back: a thread that waits then
    /// leaves no state behind that the system would have to save.
    ///
    /// # Panics
    /// Within another such call on the same thread.
    #[inline]
    pub(crate) fn run<K: TileKernel>(self, kernel: K) -> K::Output {
        self.0.vectorize(WithTiles { amx: self, kernel })
    }
}

/// A kernel over tiles and vectors.
pub(crate) trait TileKernel {
    /// What it computes.
    type Output;
    /// Runs it. Must be `#[inline(always)]`, so that it is compiled with the vectors' instructions.
    fn run<S: Simd>(self, tiles: &Tiles, simd: S) -> Self::Output;
}

struct WithTiles<K> {
    amx: Amx,
    kernel: K,
}

impl<K: TileKernel> Kernel for WithTiles<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        let tiles = Tiles::configure(self.amx);
        self.kernel.run(&tiles, simd)
    }
}

/// CPUID, leaf 7: AMX-BF16, AMX-TILE and AMX-INT8.
fn has_instructions() -> bool {
    const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // SAFETY: every x86-64 has CPUID.
    #[allow(unused_unsafe, reason = "older compilers call the function unsafe")]
    let leaf = |leaf| unsafe { __cpuid_count(leaf, 0) };
    leaf(0).eax >= 7 && leaf(7).edx & NEEDED == NEEDED
}

/// XCR0: whether the system saves the tiles' configuration (bit 17) and data (bit 18) when it changes threads.
fn system_saves_tiles() -> bool {
    const NEEDED: u64 = 1 << 17 | 1 << 18;
    // SAFETY: a machine with AVX-512, which the caller has found, has XGETBV, and its system lets programs read XCR0.
    let saved = unsafe { _xgetbv(0) };
    saved & NEEDED == NEEDED
}

/// Asks Linux for the tiles' data, for all threads of this process: their state is too large to be granted unasked.
#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: a system call that touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    result == 0
}

/// Other systems grant the tiles in ways of their own, or not at all.
#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}

thread_local! {
    /// Whether this thread has its tiles configured.
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

/// This thread's tiles, configured: eight of 16 rows by 64 bytes. Of these 0 to 3 hold the sums of a block
/// (`0 1` above `2 3`), the others its operands.
pub(crate) struct Tiles {
    /// Tiles belong to a thread.
    not_send: PhantomData<*const ()>,
}

/// The tile configuration that `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    fn configure(_proof: Amx) -> Self {
        assert!(
            !CONFIGURED.replace(true),
            "a kernel over tiles runs no other"
        );
        const TILES: usize = 8;
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes: [0; 16],
            rows: [0; 16],
        };
        configuration.bytes[..TILES].fill(ROW_BYTES as u16);
        configuration.rows[..TILES].fill(TILE_ROWS as u8);
        // SAFETY: the token proves the instruction; the configuration is one that every AMX has (palette 1).
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const configuration,
                options(nostack, readonly),
            );
        }
        Self {
            not_send: PhantomData,
        }
    }

    /// Sets the sums of a block to zero.
    #[inline(always)]
    pub(crate) fn clear(&self) {
        // SAFETY: `self` is the proof that the tiles are configured.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }

    /// Writes the sums of a block.
    #[inline(always)]
    pub(crate) fn store(&self, sums: &mut BlockSums) {
        self.store_to(&mut sums.0);
    }

    /// Writes the sums of a block into the first 1,024 words of a slice, row by row.
    #[inline(always)]
    pub(crate) fn store_to(&self, sums: &mut [f32]) {
        assert!(sums.len() >= BLOCK * BLOCK);
        // SAFETY: `self` is the proof that the tiles are configured; there is room for 32 rows of 32 words.
        unsafe {
            asm!(
                "tilestored [{upper} + {stride}], tmm0",
                "tilestored [{upper} + {stride} + 64], tmm1",
                "tilestored [{lower} + {stride}], tmm2",
                "tilestored [{lower} + {stride} + 64], tmm3",
                upper = in(reg) sums.as_mut_ptr(),
                lower = in(reg) sums.as_mut_ptr().add(TILE_ROWS * BLOCK),
                stride = in(reg) BLOCK * size_of::<f32>(),
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        CONFIGURED.set(false);
        // SAFETY: the tiles were configured, so the instruction is there; nothing else needs them.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }
}

/// What tiles hold, and how many tiles a *step* of K takes.
///
/// An operand of a step is [`Operand::STEP_BYTES`] long: for each of its parts the tiles of rows (or columns) 0 to 15 and of
/// 16 to 31, one after the other. In a tile of rows, 64 bytes of consecutive k for each row; in one of columns, for each word
/// of 32 bits of consecutive k the words of 16 columns.
pub(crate) trait Operand: Copy + 'static {
    /// Tiles that hold the same rows and k: 1, or 2 for the high and the low half of f32 values.
    const PARTS: usize;
    /// Values of k in a step.
    const STEP: usize;
    /// Products of tiles for each of a block's four.
    const PRODUCTS: usize;
    /// Bytes of a step of 32 rows.
    const STEP_BYTES: usize = Self::PARTS * 2 * TILE_BYTES;

    /// Adds a step's products to the sums of a block; of the upper 16 rows alone where `HALF`.
    ///
    /// # Safety
    /// Both operands of a step must be readable: `STEP_BYTES` each, of `rows` the first tile of each part where `HALF`.
    unsafe fn multiply<const HALF: bool>(tiles: &Tiles, rows: *const u8, columns: *const u8);

    /// [`Operand::multiply`] where it is not known beforehand whether the upper rows are all.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn multiply_rows(tiles: &Tiles, half: bool, rows: *const u8, columns: *const u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match half {
                false => Self::multiply::<false>(tiles, rows, columns),
                true => Self::multiply::<true>(tiles, rows, columns),
            }
        }
    }

    /// Adds four products of what the tiles hold: the instructions alone, to measure how fast they are.
    fn multiply_again(tiles: &Tiles);
}

/// Four products of what the operands' tiles hold.
macro_rules! multiply_again {
    ($product:literal) => {
        // SAFETY: the tiles are configured.
        unsafe {
            asm!(
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7"),
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            )
        }
    };
}

/// Loads the tiles of rows at `$rows` and of columns at `$columns` and adds their products, named by the instruction.
macro_rules! multiply_whole {
    ($product:literal, $rows:expr, $columns:expr) => {
        asm!(
            "tileloadd tmm6, [{columns} + {stride}]",
            "tileloadd tmm4, [{rows} + {stride}]",
            concat!($product, " tmm0, tmm4, tmm6"),
            "tileloadd tmm5, [{rows} + {stride} + 1024]",
            concat!($product, " tmm2, tmm5, tmm6"),
            "tileloadd tmm7, [{columns} + {stride} + 1024]",
            concat!($product, " tmm1, tmm4, tmm7"),
            concat!($product, " tmm3, tmm5, tmm7"),
            rows = in(reg) $rows,
            columns = in(reg) $columns,
            stride = in(reg) ROW_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// [`multiply_whole`] for the upper rows.
macro_rules! multiply_half {
    ($product:literal, $rows:expr, $columns:expr) => {
        asm!(
            "tileloadd tmm4, [{rows} + {stride}]",
            "tileloadd tmm6, [{columns} + {stride}]",
            concat!($product, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{columns} + {stride} + 1024]",
            concat!($product, " tmm1, tmm4, tmm7"),
            rows = in(reg) $rows,
            columns = in(reg) $columns,
            stride = in(reg) ROW_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// bf16; sums are f32, of which those below 2⁻¹²⁶ are zero.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Operand for Bf16 {
    const PARTS: usize = 1;
    const STEP: usize = 32;
    const PRODUCTS: usize = 1;

    #[inline(always)]
    fn multiply_again(_: &Tiles) {
        multiply_again!("tdpbf16ps");
    }

    #[inline(always)]
    unsafe fn multiply<const HALF: bool>(_: &Tiles, rows: *const u8, columns: *const u8) {
        // SAFETY: the tiles are configured, and the caller vouches for the operands.
        unsafe {
            if HALF {
                multiply_half!("tdpbf16ps", rows, columns);
            } else {
                multiply_whole!("tdpbf16ps", rows, columns);
            }
        }
    }
}

/// Bytes with a sign; sums are i32.
#[derive(Clone, Copy)]
pub(crate) struct Int8;

impl Operand for Int8 {
    const PARTS: usize = 1;
    const STEP: usize = 64;
    const PRODUCTS: usize = 1;

    #[inline(always)]
    fn multiply_again(_: &Tiles) {
        multiply_again!("tdpbssd");
    }

    #[inline(always)]
    unsafe fn multiply<const HALF: bool>(_: &Tiles, rows: *const u8, columns: *const u8) {
        // SAFETY: the tiles are configured, and the caller vouches for the operands.
        unsafe {
            if HALF {
                multiply_half!("tdpbssd", rows, columns);
            } else {
                multiply_whole!("tdpbssd", rows, columns);
            }
        }
    }
}

/// f32 values as the sum of two bf16 each, high and low: `low·high + high·low + high·high`, where `low·low` is below the
/// rounding that is left.
#[derive(Clone, Copy)]
pub(crate) struct Halves;

impl Operand for Halves {
    const PARTS: usize = 2;
    const STEP: usize = 32;
    const PRODUCTS: usize = 3;

    #[inline(always)]
    fn multiply_again(_: &Tiles) {
        multiply_again!("tdpbf16ps");
    }

    #[inline(always)]
    unsafe fn multiply<const HALF: bool>(_: &Tiles, rows: *const u8, columns: *const u8) {
        // SAFETY: the tiles are configured, and the caller vouches for the operands.
        unsafe {
            if HALF {
                asm!(
                    "tileloadd tmm5, [{rows} + {stride} + 2048]",
                    "tileloadd tmm6, [{columns} + {stride}]",
                    "tdpbf16ps tmm0, tmm5, tmm6",
                    "tileloadd tmm7, [{columns} + {stride} + 1024]",
                    "tdpbf16ps tmm1, tmm5, tmm7",
                    "tileloadd tmm4, [{rows} + {stride}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm6, [{columns} + {stride} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{columns} + {stride} + 3072]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    rows = in(reg) rows,
                    columns = in(reg) columns,
                    stride = in(reg) ROW_BYTES,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    // Low halves of rows by high ones of columns.
                    "tileloadd tmm6, [{columns} + {stride}]",
                    "tileloadd tmm4, [{rows} + {stride} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{rows} + {stride} + 3072]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm7, [{columns} + {stride} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    // High by high.
                    "tileloadd tmm4, [{rows} + {stride}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{rows} + {stride} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    // High by low.
                    "tileloadd tmm6, [{columns} + {stride} + 2048]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tileloadd tmm7, [{columns} + {stride} + 3072]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    rows = in(reg) rows,
                    columns = in(reg) columns,
                    stride = in(reg) ROW_BYTES,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
        }
    }
}
