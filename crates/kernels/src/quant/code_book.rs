//! What the codes of a format stand for.

/// What codes stand for; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeBook {
    /// Whole numbers of 2 to 8 bits about 0.
    Symmetric(u8),
    /// Whole numbers of 2 to 8 bits from a zero point on.
    Asymmetric(u8),
    /// 4 bits: quantiles of the normal distribution.
    Nf4,
    /// 4 bits: bitsandbytes' floating point.
    Fp4,
    /// 4 bits: floating point with 2 bits of exponent, 1 of mantissa.
    E2m1,
    /// 1 bit.
    Sign,
}

/// Quantiles of the normal distribution, normalised to −1…1, with a 0: those of bitsandbytes' `get_4bit_type`.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Magnitudes over 12, in the order of their codes.
const FP4: [f32; 8] = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];

/// Magnitudes over 6, in the order of their codes.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

impl CodeBook {
    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::Symmetric(bits) | Self::Asymmetric(bits) => usize::from(bits),
            Self::Nf4 | Self::Fp4 | Self::E2m1 => 4,
            Self::Sign => 1,
        }
    }

    /// Whether groups have zero points.
    pub fn has_zero_points(self) -> bool {
        matches!(self, Self::Asymmetric(_))
    }

    /// The level of a code, before zero point and scale.
    #[inline]
    pub fn level(self, code: u8) -> f32 {
        let signed = |magnitudes: &[f32; 8], most: f32| {
            let magnitude = magnitudes[usize::from(code & 7)] / most;
            if code & 8 == 0 { magnitude } else { -magnitude }
        };
        match self {
            Self::Symmetric(bits) => f32::from(code) - f32::from(1u16 << (bits - 1)),
            Self::Asymmetric(_) => f32::from(code),
            Self::Nf4 => NF4[usize::from(code & 15)],
            Self::Fp4 => signed(&FP4, 12.0),
            Self::E2m1 => signed(&E2M1, 6.0),
            Self::Sign => f32::from(code & 1) * 2.0 - 1.0,
        }
    }

    /// The largest magnitude of a level.
    pub fn most(self) -> f32 {
        match self {
            Self::Symmetric(bits) => f32::from((1u16 << (bits - 1)) - 1),
            Self::Asymmetric(bits) => f32::from((1u16 << bits) - 1),
            _ => 1.0,
        }
    }

    /// The levels of the codes of up to 4 bits; the rest are 0.
    pub(crate) fn table(self) -> [f32; 16] {
        let mut table = [0.0; 16];
        for (code, level) in table.iter_mut().enumerate().take(1 << self.bits().min(4)) {
            *level = self.level(code as u8);
        }
        table
    }

    /// The code of the level that is nearest to `x`, a value in units of the scale with the zero point added; half way
    /// to even where levels are whole numbers, and down elsewhere.
    pub(super) fn nearest(self, x: f32) -> u8 {
        match self {
            Self::Symmetric(bits) => {
                let most = self.most();
                (rounded(x.clamp(-most, most)) + f32::from(1u16 << (bits - 1))) as u8
            }
            Self::Asymmetric(_) => rounded(x.clamp(0.0, self.most())) as u8,
            Self::Sign => u8::from(x >= 0.0),
            Self::Nf4 => {
                let above = |pair: &&[f32]| x > (pair[0] + pair[1]) / 2.0;
                NF4.windows(2).take_while(above).count() as u8
            }
            Self::Fp4 | Self::E2m1 => {
                let distance = |code: u8| (self.level(code) - x.abs()).abs();
                let mut best = 0;
                for code in 1..8 {
                    if distance(code) < distance(best) {
                        best = code;
                    }
                }
                // Nothing is gained by a negative zero.
                if x < 0.0 && best != 0 { best | 8 } else { best }
            }
        }
    }
}

/// Half to even, of values within some thousands: at 1.5·2²³ an f32 has no room for a fraction. Unlike
/// [`f32::round_ties_even`] it is no call where the instruction set is not known.
#[inline(always)]
pub(super) fn rounded(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}
