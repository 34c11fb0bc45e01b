use super::*;

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 + 0.5) / f64::from(1u32 << 31)
    };
    (0..count)
        .map(|_| {
            let (u, v) = (uniform(), uniform());
            ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
        })
        .collect()
}

fn round_trip(book: CodeBook, x: &[f32], size: usize, range: Range) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for (x, y) in x.chunks(size).zip(y.chunks_mut(size)) {
        let group = fit_group(book, x, range, None);
        let mut codes = vec![0; x.len()];
        encode_group(book, x, group, &mut codes);
        decode_group(book, &codes, group, y);
    }
    y
}

fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let error: f64 = x.iter().zip(y).map(|(x, y)| square(x - y)).sum();
    error / x.iter().map(|&x| square(x)).sum::<f64>()
}

/// The bytes and values that bitsandbytes gives.
#[test]
fn four_bits_are_those_of_bitsandbytes() {
    let x = [1.0, -0.5, 0.1, 0.0];
    for (book, bytes, values) in [
        (
            CodeBook::Nf4,
            [0xF2, 0x87],
            [1.0, -0.525_073_05, 0.079_580_3, 0.0],
        ),
        (CodeBook::Fp4, [0x3D, 0x60], [1.0, -0.5, 1.0 / 6.0, 0.0]),
    ] {
        let group = fit_group(book, &x, Range::MinMax, None);
        assert_eq!(group.scale, 1.0);
        let (mut codes, mut packed, mut y) = ([0; 4], [0; 2], [0.0; 4]);
        encode_group(book, &x, group, &mut codes);
        pack_codes(4, &codes, &mut packed);
        assert_eq!(packed, bytes, "{book:?}");
        decode_group(book, &codes, group, &mut y);
        assert_eq!(y, values, "{book:?}");
    }
}

/// Relative squared errors on normal values, as published or simulated with the same formats.
#[test]
fn errors_on_normal_values_are_those_expected() {
    let x = normal(1 << 16, 3);
    for (book, [of_64, of_256]) in [
        (CodeBook::Nf4, [0.0084, 0.0098]),
        (CodeBook::E2m1, [0.0113, 0.0124]),
        (CodeBook::Symmetric(4), [0.0115, 0.0160]),
        (CodeBook::Fp4, [0.0148, 0.0182]),
        (CodeBook::Symmetric(8), [4e-5, 5e-5]),
    ] {
        for (size, expected) in [(64, of_64), (256, of_256)] {
            let found = relative_error(&x, &round_trip(book, &x, size, Range::MinMax));
            assert!(
                (found / expected - 1.0f64).abs() < 0.15,
                "{book:?} of {size}: {found}"
            );
        }
    }
}

#[test]
fn what_is_on_the_lattice_stays() {
    for book in [
        CodeBook::Symmetric(2),
        CodeBook::Symmetric(4),
        CodeBook::Asymmetric(2),
        CodeBook::Asymmetric(3),
        CodeBook::Asymmetric(4),
        CodeBook::Nf4,
        CodeBook::Fp4,
        CodeBook::E2m1,
        CodeBook::Sign,
    ] {
        let x = normal(96, 7);
        let once = round_trip(book, &x, 32, Range::MinMax);
        let twice = round_trip(book, &once, 32, Range::MinMax);
        for (once, twice) in once.iter().zip(&twice) {
            assert!((once - twice).abs() <= 1e-6 * once.abs(), "{book:?}");
        }
        // Powers of two go through.
        let doubled: Vec<f32> = x.iter().map(|x| 4.0 * x).collect();
        let expected: Vec<f32> = once.iter().map(|x| 4.0 * x).collect();
        assert_eq!(
            round_trip(book, &doubled, 32, Range::MinMax),
            expected,
            "{book:?}"
        );
        let zeros = round_trip(book, &[0.0; 5], 3, Range::MinMax);
        assert_eq!(zeros, [0.0; 5], "{book:?}");
    }
}

#[test]
fn a_better_range_has_a_smaller_error() {
    let mut x = normal(4096, 5);
    for x in x.iter_mut().step_by(64) {
        *x *= 4.0;
    }
    for book in [CodeBook::Symmetric(4), CodeBook::Asymmetric(3)] {
        let error = |range| relative_error(&x, &round_trip(book, &x, 128, range));
        assert!(error(Range::MeanSquare) < error(Range::MinMax), "{book:?}");
        assert!(
            error(Range::Percentile(100.0)) == error(Range::MinMax),
            "{book:?}"
        );
        assert!(
            error(Range::Percentile(99.0)) != error(Range::MinMax),
            "{book:?}"
        );
    }
}

#[test]
fn codes_of_any_width_come_back() {
    for bits in 1..=8 {
        for count in [0, 1, 3, 7, 8, 9, 64, 101] {
            let codes: Vec<u8> = (0..count).map(|i| (i * 37 % (1 << bits)) as u8).collect();
            let mut bytes = vec![0xAA; packed_len(bits, count)];
            pack_codes(bits, &codes, &mut bytes);
            let mut back = vec![0xAA; count];
            unpack_codes(bits, &bytes, &mut back);
            assert_eq!(back, codes, "{bits} bits, {count} codes");
        }
    }
}

#[test]
fn scales_in_eight_bits() {
    let map = dynamic_map();
    assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
    assert!((map[0] + 0.992_968_75).abs() < 1e-6 && map[255] == 1.0);
    let positive = map.iter().find(|&&level| level > 0.0).unwrap();
    assert!((positive - 5.5e-7).abs() < 1e-9);
    let scales: Vec<f32> = normal(1000, 9)
        .iter()
        .map(|x| 1.5 + 0.4 * x.sin())
        .collect();
    let back = DynamicScales::encode(&scales).decode().unwrap();
    for (scale, back) in scales.iter().zip(&back) {
        assert!((scale - back).abs() < 0.01 * scale, "{scale} {back}");
    }
}

/// Mean magnitude 0.5: above 0.35 are 0.9 and −1.1, whose mean is 1.
#[test]
fn ternary_levels_are_those_of_large_values() {
    let x = [0.9, -1.1, 0.2, -0.2, 0.1, 0.5 - 1e-6];
    let book = CodeBook::Symmetric(2);
    let group = fit_group(book, &x[..5], Range::Ternary, None);
    assert!((group.scale - 1.0).abs() < 1e-6);
    let mut codes = [0; 6];
    encode_group(book, &x, group, &mut codes);
    let mut values = [0.0; 6];
    decode_group(book, &codes, group, &mut values);
    assert_eq!(
        values.map(|value| value.round() as i32),
        [1, -1, 0, 0, 0, 0]
    );
    assert_eq!(fit_group(book, &[0.0; 4], Range::Ternary, None).scale, 0.0);
}

#[test]
fn steps_are_the_nearest_within_their_ends() {
    let x = [
        -9.0,
        -1.26,
        -0.25,
        0.25,
        0.75,
        0.8,
        1.26,
        f32::INFINITY,
        f32::NAN,
    ];
    let expected = [-2.0, -1.5, -0.0, 0.0, 1.0, 1.0, 1.5, 1.5];
    for isa in crate::Isa::available() {
        let exec = crate::Exec::with_isa(isa, 2);
        let mut out = [0.0; 9];
        round_to_steps(&exec, &x, 0.5, (-4.0, 3.0), &mut out);
        assert_eq!(out[..8], expected, "{isa}");
        assert!(out[8].is_nan());
    }
}
