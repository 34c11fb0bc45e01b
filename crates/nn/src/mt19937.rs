//! The Mersenne Twister (Matsumoto & Nishimura 1998, <https://doi.org/10.1145/272991.272995>), and the shuffle that numpy's
//! `RandomState` makes of it: checkpoints were trained on what it gave.

const N: usize = 624;
const M: usize = 397;

/// MT19937.
pub(crate) struct Mt19937 {
    state: [u32; N],
    at: usize,
}

impl Mt19937 {
    /// Seeded as `numpy.random.seed(seed)` does it.
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self { state, at: N }
    }

    fn next(&mut self) -> u32 {
        if self.at == N {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }

    /// Shuffles as `numpy.random.permutation` does a copy of the values.
    pub(crate) fn shuffle(&mut self, values: &mut [u32]) {
        for i in (1..values.len()).rev() {
            let mask = (i + 1).next_power_of_two() as u32 - 1;
            let j = loop {
                let j = self.next() & mask;
                if j as usize <= i {
                    break j;
                }
            };
            values.swap(i, j as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_the_reference() {
        // The first of seed 5489, and the 10,000th, by the C++ standard (26.6.5).
        let mut twister = Mt19937::new(5489);
        assert_eq!(twister.next(), 3_499_211_612);
        let last = (1..10_000).map(|_| twister.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn shuffles_as_numpy() {
        // numpy.random.seed(s); numpy.random.permutation(10)
        for (seed, expected) in [
            (0, [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]),
            (42, [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]),
        ] {
            let mut values: Vec<u32> = (0..10).collect();
            Mt19937::new(seed).shuffle(&mut values);
            assert_eq!(values, expected);
        }
    }
}
