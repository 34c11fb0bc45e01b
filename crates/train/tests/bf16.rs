//! Passes in bf16 beside those in f32.

use bertha_autograd::ops::Reduction;
use bertha_autograd::{Gradients, Precision, Session};
use bertha_models::{Config, ForwardOptions, Head, Targets, TrainableModel, loss};
use bertha_nn::Batch;

const SIZES: &str = r#""vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 136, "max_position_embeddings": 130"#;

/// The families whose layers differ most: fused projections, RoPE and gates, biases by distance.
const FAMILIES: [(&str, &str); 3] = [
    ("bert", ""),
    (
        "modernbert",
        r#", "local_attention": 32, "global_attn_every_n_layers": 2, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2"#,
    ),
    ("mpnet", ""),
];

struct Pass {
    loss: f32,
    /// Of all parameters, end to end.
    gradient: Vec<f32>,
    /// Bytes that the pass took at once, its gradients not counted.
    peak: usize,
}

fn pass(family: &(&str, &str), precision: Precision, threads: usize) -> Pass {
    let (name, more) = family;
    let json = format!(r#"{{"model_type": "{name}", {SIZES}{more}}}"#);
    let config = Config::from_json(json.as_bytes(), "config.json").unwrap();
    let session = Session::new(Some(threads))
        .unwrap()
        .with_precision(precision);
    let model = TrainableModel::new(config, Head::MaskedLm, &session, 7).unwrap();
    let sequences: Vec<Vec<u32>> = [100u32, 1, 57, 90, 128]
        .iter()
        .map(|&len| (0..len).map(|i| 5 + (i * 37 + len) % 290).collect())
        .collect();
    let batch = Batch::from_sequences(&sequences).unwrap();
    let labels: Vec<i64> = (0..batch.tokens() as i64)
        .map(|i| if i % 5 == 0 { 5 + i % 290 } else { -100 })
        .collect();
    let run = || {
        let session = session.training(1, 0);
        let outputs = model
            .model
            .forward(&session, &batch, &ForwardOptions::default())
            .unwrap();
        let targets = Targets::Classes(&labels);
        let loss = loss(&session, Head::MaskedLm, &outputs, targets, Reduction::Mean).unwrap();
        let value = loss.tensor().item::<f32>().unwrap();
        drop(outputs);
        let mut gradients = Gradients::new();
        loss.backward(&session, &mut gradients).unwrap();
        (value, gradients)
    };
    // Packs the weights.
    run();
    session.pool().reset_peak();
    let before = session.pool().stats().used_bytes;
    let (loss, gradients) = run();
    let peak = session.pool().stats().peak_used_bytes - before;
    let gradient: Vec<f32> = model
        .parameters
        .iter()
        .flat_map(|p| match gradients.get(p) {
            Some(gradient) => gradient.to_vec::<f32>().unwrap(),
            None => vec![0.0; p.numel()],
        })
        .collect();
    let peak = peak - size_of_val(&*gradient).min(peak);
    Pass {
        loss,
        gradient,
        peak,
    }
}

#[test]
fn gradients_are_those_of_f32_but_for_rounding() {
    for family in &FAMILIES {
        let whole = pass(family, Precision::F32, 2);
        let half = pass(family, Precision::Bf16, 2);
        assert!(half.loss != whole.loss, "{}: nothing was rounded", family.0);
        let error = (half.loss - whole.loss).abs() / whole.loss;
        assert!(
            error < 2e-3,
            "{}: loss {} {}",
            family.0,
            half.loss,
            whole.loss
        );
        let squares = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>()
        };
        let pairs = half.gradient.iter().zip(&whole.gradient);
        let error = squares(&mut pairs.map(|(a, b)| a - b));
        let size = squares(&mut whole.gradient.iter().copied());
        let error = (error / size).sqrt();
        // bf16 has 8 bits: a product's error is about 2⁻⁹ of its operands'.
        assert!((1e-5..3e-2).contains(&error), "{}: {error}", family.0);
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for family in &FAMILIES {
        let (one, two) = (
            pass(family, Precision::Bf16, 1),
            pass(family, Precision::Bf16, 2),
        );
        assert_eq!(one.loss.to_bits(), two.loss.to_bits(), "{}", family.0);
        assert!(one.gradient == two.gradient, "{}", family.0);
    }
}

#[test]
fn a_pass_takes_less_memory() {
    let [whole, half] = [Precision::F32, Precision::Bf16].map(|p| pass(&FAMILIES[0], p, 1).peak);
    assert!(10 * half < 8 * whole, "{half} of {whole} bytes");
}
