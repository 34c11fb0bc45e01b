//! The real all-MiniLM-L6-v2 on 1,000 real sentences against sentence-transformers (`tests/golden/minilm/`), and
//! against itself: other thread counts, other batches, other instruction sets.

mod real_model;

use std::path::Path;

use bertha::autograd::Session;
use bertha::kernels::{Exec, Isa, Operands, product_kernel};
use bertha::tensor::Checkpoint;
use bertha::tokenizer::{EncodeOptions, Input};
use bertha::{Encoder, Precision};
use ndarray::{Array2, ArrayView2, Ix2};

/// Largest absolute difference of a number of a normalised embedding, as the fixtures' README states it.
fn tolerance(isa: Isa) -> f32 {
    match isa.multiplies_halves() {
        // The contract of f32 is 10⁻⁵ a product there.
        true => 2e-5,
        false => 2e-6,
    }
}

fn golden() -> Checkpoint {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Checkpoint::open(root.join("tests/golden/minilm/expected.safetensors")).unwrap()
}

fn golden_embeddings() -> Array2<f32> {
    let embeddings = golden().get("embeddings").unwrap();
    embeddings
        .to_ndarray::<f32>()
        .unwrap()
        .into_dimensionality::<Ix2>()
        .unwrap()
}

fn sentences() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/golden/minilm/sentences.txt")).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1000);
    lines
}

/// Every `step`-th sentence, with the golden rows.
fn every(step: usize) -> (Vec<String>, Array2<f32>) {
    let rows: Vec<usize> = (0..1000).step_by(step).collect();
    let texts = sentences();
    let some = rows.iter().map(|&row| texts[row].clone()).collect();
    (some, golden_embeddings().select(ndarray::Axis(0), &rows))
}

fn encoder(isa: Isa, threads: usize) -> Encoder {
    let session = Session::from_exec(Exec::with_isa(isa, threads));
    Encoder::builder(real_model::minilm())
        .session(session)
        .build()
        .unwrap()
}

/// The instruction set the process would use by itself: the best one, or what `BERTHA_ISA` says.
fn usual_isa() -> Isa {
    Isa::from_env().unwrap()
}

fn largest_difference(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    let differences = a.iter().zip(b).map(|(x, y)| (x - y).abs());
    // A NaN must not be lost in the maximum.
    differences.fold(
        0.0,
        |max: f32, d| if d > max || d.is_nan() { d } else { max },
    )
}

fn bits(embeddings: &Array2<f32>) -> Vec<u32> {
    embeddings.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn token_ids_are_the_same() {
    let encoder = Encoder::from_dir(real_model::minilm()).unwrap();
    assert_eq!(encoder.max_length(), 256);
    let golden = golden();
    let ids = golden.get("input_ids").unwrap().to_vec::<i32>().unwrap();
    let bounds = golden.get("cu_seqlens").unwrap().to_vec::<i32>().unwrap();
    let texts = sentences();
    assert_eq!(bounds.len(), texts.len() + 1);
    let inputs: Vec<Input<'_>> = texts.iter().map(Input::from).collect();
    let options = EncodeOptions::truncated(encoder.max_length());
    let encodings = encoder.tokenizer().encode_batch(&inputs, &options).unwrap();
    assert_eq!(encodings.len(), texts.len());
    for ((text, encoding), bound) in texts.iter().zip(&encodings).zip(bounds.windows(2)) {
        let expected: Vec<u32> = ids[bound[0] as usize..bound[1] as usize]
            .iter()
            .map(|&id| id as u32)
            .collect();
        assert_eq!(encoding.ids(), expected, "{text}");
    }
}

#[test]
fn a_thousand_sentences_embed_as_in_sentence_transformers() {
    let encoder = Encoder::from_dir(real_model::minilm()).unwrap();
    assert_eq!(encoder.dimension(), 384);
    let texts = sentences();
    let mut steps = Vec::new();
    let found = encoder
        .embed_with(&texts, &mut |done| steps.push(done))
        .unwrap();
    let difference = largest_difference(found.view(), golden_embeddings().view());
    println!("largest difference: {difference:e}");
    let most = tolerance(Isa::from_env().unwrap());
    assert!(difference <= most, "largest difference {difference:e}");
    for row in found.rows() {
        let norm = row
            .iter()
            .map(|&x| f64::from(x).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "an embedding of length {norm}");
    }
    assert!(
        steps.is_sorted() && steps.last() == Some(&1000),
        "progress: {steps:?}"
    );
}

/// Cosines with the f32 embeddings of sentence-transformers: the mean and the least.
fn cosines(found: &Array2<f32>) -> (f64, f64) {
    let golden = golden_embeddings();
    let rows = found.rows().into_iter().zip(golden.rows());
    let cosines: Vec<f64> = rows
        .map(|(a, b)| {
            let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
            products.sum()
        })
        .collect();
    assert!(cosines.iter().all(|cosine| cosine.is_finite()));
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    (cosines.iter().sum::<f64>() / cosines.len() as f64, least)
}

#[test]
fn lower_precisions_stay_close() {
    for (precision, mean, least) in [
        (Precision::Bf16, 0.9999, 0.999),
        (Precision::Int8, 0.995, 0.97),
    ] {
        if real_model::is_too_slow(precision) {
            continue;
        }
        let builder = Encoder::builder(real_model::minilm()).precision(precision);
        let found = cosines(&builder.build().unwrap().embed(&sentences()).unwrap());
        let name = precision.name();
        println!(
            "{name}: cosine {:.6} on average, {:.6} at least",
            found.0, found.1
        );
        assert!(found.0 >= mean && found.1 >= least, "{name}: {found:?}");
    }
}

#[test]
fn what_ran_can_be_told() {
    for isa in Isa::available() {
        for (precision, operands) in [
            (Precision::F32, Operands::F32),
            (Precision::Bf16, Operands::Bf16),
            (Precision::Int8, Operands::Int8),
        ] {
            let session = Session::from_exec(Exec::with_isa(isa, 1)).with_precision(precision);
            let (session, explanation) = session.explaining();
            let encoder = Encoder::builder(real_model::minilm()).session(session);
            encoder.build().unwrap().embed(&["A cat."]).unwrap();
            let ran = explanation.ran();
            let linear: Vec<_> = ran.iter().filter(|(op, ..)| *op == "linear").collect();
            // Four products a layer, all of them on the kernel of the precision; 6 layers of [CLS] a cat . [SEP].
            assert_eq!(linear.len(), 1, "{ran:?}");
            let &&(_, kernel, count) = &linear[0];
            assert_eq!(kernel, product_kernel(isa, operands));
            assert!(count.calls >= 24, "{count:?}");
            assert!(
                count.multiply_adds >= 5 * 6 * (4 * 384 * 384 + 2 * 384 * 1536),
                "{count:?}"
            );
            let attention = match precision {
                Precision::F32 if isa.multiplies_halves() => product_kernel(isa, Operands::F32),
                Precision::Bf16 | Precision::Int8 if isa.multiplies_bf16() => {
                    product_kernel(isa, Operands::Bf16)
                }
                _ => isa.name(),
            };
            assert!(ran.iter().any(|&(op, kernel, count)| {
                op == "attention" && kernel == attention && count.calls == 6
            }));
        }
    }
}

#[test]
fn strict_f32_is_as_near_on_any_machine() {
    let (texts, expected) = every(9);
    let encoder = Encoder::builder(real_model::minilm()).precision(Precision::F32Strict);
    let found = encoder.build().unwrap().embed(&texts).unwrap();
    let difference = largest_difference(found.view(), expected.view());
    assert!(difference <= 2e-6, "largest difference {difference:e}");
}

#[test]
fn every_instruction_set_embeds_the_same() {
    let (texts, expected) = every(9);
    for isa in Isa::available() {
        let found = encoder(isa, 2).embed(&texts).unwrap();
        let difference = largest_difference(found.view(), expected.view());
        println!("{isa}: {difference:e}");
        assert!(
            difference <= tolerance(isa),
            "{isa}: largest difference {difference:e}"
        );
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let (texts, _) = every(17);
    for isa in Isa::available() {
        let expected = bits(&encoder(isa, 1).embed(&texts).unwrap());
        for threads in [2, 3, 8] {
            let found = bits(&encoder(isa, threads).embed(&texts).unwrap());
            assert!(
                found == expected,
                "{isa}: {threads} threads give other bits than one"
            );
        }
    }
}

#[test]
fn the_same_bits_in_any_company() {
    let (texts, _) = every(19);
    let encoder = encoder(usual_isa(), 2);
    let together = encoder.embed(&texts).unwrap();
    let expected = bits(&together);

    for (i, text) in texts.iter().enumerate() {
        let alone = encoder.embed(&[text]).unwrap();
        let row = &expected[i * 384..(i + 1) * 384];
        assert!(bits(&alone) == row, "alone: {text}");
    }
    for batch_tokens in [1, 100, 1000, 1 << 20] {
        let other = Encoder::builder(real_model::minilm())
            .session(encoder.session().clone())
            .batch_tokens(batch_tokens)
            .build()
            .unwrap();
        let found = bits(&other.embed(&texts).unwrap());
        assert!(
            found == expected,
            "batches of {batch_tokens} tokens give other bits"
        );
    }
    let backwards: Vec<&String> = texts.iter().rev().collect();
    let mut found = encoder.embed(&backwards).unwrap();
    found.invert_axis(ndarray::Axis(0));
    assert!(
        bits(&found) == expected,
        "the order of the texts changes bits"
    );
    let doubled: Vec<&String> = texts.iter().chain(&texts).collect();
    let found = bits(&encoder.embed(&doubled).unwrap());
    assert!(found[..expected.len()] == expected && found[expected.len()..] == expected);
}

#[test]
fn clones_share_the_model_between_threads() {
    let (texts, _) = every(50);
    let encoder = encoder(usual_isa(), 2);
    let expected = bits(&encoder.embed(&texts).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (encoder, texts, expected) = (encoder.clone(), &texts, &expected);
            scope.spawn(move || assert!(bits(&encoder.embed(texts).unwrap()) == *expected));
        }
    });
}
