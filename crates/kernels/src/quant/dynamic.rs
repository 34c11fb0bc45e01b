//! Scales in 8 bits (double quantization, Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, section 3): what is
//! left of the scales when their mean has been taken, in blocks of 256, by a map that is finer near 0.

/// Scales that share a magnitude.
pub const SCALE_BLOCK: usize = 256;

/// The 256 levels of bitsandbytes' `create_dynamic_map`, rising: decades from 10⁻⁶ to 1, each cut twice as finely as the
/// one below, with both signs, and 0 and 1.
pub fn dynamic_map() -> [f32; 256] {
    let mut levels = vec![0.0f64, 1.0];
    for decade in 0..7 {
        let parts = 1 << decade;
        let edge = |i: i32| 0.1 + 0.9 * f64::from(i) / f64::from(parts);
        for i in 0..parts {
            let middle = (edge(i) + edge(i + 1)) / 2.0 * 10f64.powi(decade - 6);
            levels.extend([middle, -middle]);
        }
    }
    levels.sort_by(f64::total_cmp);
    std::array::from_fn(|i| levels[i] as f32)
}

/// Scales in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicScales {
    /// A code for each scale.
    pub codes: Vec<u8>,
    /// The magnitude of each block of [`SCALE_BLOCK`] scales.
    pub magnitudes: Vec<f32>,
    /// The mean of all scales.
    pub mean: f32,
}

impl DynamicScales {
    /// Encodes scales.
    pub fn encode(scales: &[f32]) -> Self {
        let sum: f64 = scales.iter().map(|&scale| f64::from(scale)).sum();
        let mean = (sum / scales.len().max(1) as f64) as f32;
        let map = dynamic_map();
        let mut codes = Vec::with_capacity(scales.len());
        let mut magnitudes = Vec::new();
        for block in scales.chunks(SCALE_BLOCK) {
            let most = block
                .iter()
                .fold(0.0f32, |most, &scale| most.max((scale - mean).abs()));
            magnitudes.push(most);
            codes.extend(block.iter().map(|&scale| {
                let x = if most > 0.0 {
                    (scale - mean) / most
                } else {
                    0.0
                };
                let above = map.partition_point(|&level| level < x);
                let nearer = above > 0 && (above == 256 || x - map[above - 1] <= map[above] - x);
                (above - usize::from(nearer)) as u8
            }));
        }
        Self {
            codes,
            magnitudes,
            mean,
        }
    }

    /// The scales; none where there are not as many blocks as the codes need.
    pub fn decode(&self) -> Option<Vec<f32>> {
        if self.magnitudes.len() != self.codes.len().div_ceil(SCALE_BLOCK) {
            return None;
        }
        let map = dynamic_map();
        let blocks = self.codes.chunks(SCALE_BLOCK).zip(&self.magnitudes);
        let scales = blocks.flat_map(|(codes, most)| {
            codes
                .iter()
                .map(move |&code| map[usize::from(code)] * most + self.mean)
        });
        Some(scales.collect())
    }
}
