//! Counter-based random numbers: Philox4x32-10
//! (Salmon et al. 2011, <https://doi.org/10.1145/2063384.2063405>).
//!
//! A number is a function of a key and a counter, so it depends on nothing that ran before it: not on
//! threads, nor on the order of work, and a backward pass can ask for the forward's numbers again.

/// The rounds' multipliers.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by from round to round.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Counters that are worked on side by side.
pub(crate) const LANES: usize = 8;

/// The four random words of a counter under a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k, mut l] = key;
    for _ in 0..ROUNDS {
        let p = u64::from(MULTIPLIERS[0]) * u64::from(a);
        let q = u64::from(MULTIPLIERS[1]) * u64::from(c);
        (a, b, c, d) = (
            (q >> 32) as u32 ^ b ^ k,
            q as u32,
            (p >> 32) as u32 ^ d ^ l,
            p as u32,
        );
        k = k.wrapping_add(WEYL[0]);
        l = l.wrapping_add(WEYL[1]);
    }
    [a, b, c, d]
}

/// [`philox4x32`] of [`LANES`] counters; `counter[i]` holds the i-th words of all. Plain loops over arrays, which
/// the compiler turns into the tier's vectors.
#[inline(always)]
pub(crate) fn philox_lanes(counter: [[u32; LANES]; 4], key: [u32; 2]) -> [[u32; LANES]; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k, mut l] = key;
    for _ in 0..ROUNDS {
        for i in 0..LANES {
            let p = u64::from(MULTIPLIERS[0]) * u64::from(a[i]);
            let q = u64::from(MULTIPLIERS[1]) * u64::from(c[i]);
            a[i] = (q >> 32) as u32 ^ b[i] ^ k;
            b[i] = q as u32;
            c[i] = (p >> 32) as u32 ^ d[i] ^ l;
            d[i] = p as u32;
        }
        k = k.wrapping_add(WEYL[0]);
        l = l.wrapping_add(WEYL[1]);
    }
    [a, b, c, d]
}

/// A random word as one of 2²⁴ evenly spaced values from 0 to below 1.
#[inline(always)]
pub(crate) fn uniform(word: u32) -> f32 {
    // Signed: every tier converts signed integers in one instruction.
    (word >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Random123's kat_vectors, philox4x32 of 10 rounds.
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn lanes_are_the_counters_one_by_one() {
        let counter = std::array::from_fn(|word| {
            std::array::from_fn(|lane| ((word as u32 + 3) * 0x1234_5677) ^ ((lane as u32) << word))
        });
        let key = [7, u32::MAX - 3];
        let found = philox_lanes(counter, key);
        for lane in 0..LANES {
            let one = philox4x32(counter.map(|words| words[lane]), key);
            assert_eq!(found.map(|words| words[lane]), one);
        }
    }

    #[test]
    fn uniform_values_are_below_one() {
        assert_eq!(uniform(0), 0.0);
        assert_eq!(uniform(u32::MAX), 1.0 - 1.0 / (1 << 24) as f32);
        assert_eq!(uniform(1 << 31), 0.5);
    }
}
