//! Quantized models of every family: what is saved is what runs, and what runs is what the codes stand for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bertha_autograd::Session;
use bertha_compress::{
    Calibration, CompressError, Method, PowerIteration, Quantized, Settings, curvatures, quantize,
    sensitivities, spare,
};
use bertha_kernels::{
    CodeBook, DynamicScales, Exec, Group, GroupRange, Isa, decode_group, dynamic_map, encode_group,
    fit_group,
};
use bertha_models::{Config, ForwardOptions, Head, Model, TrainableModel, load, load_checkpoint};
use bertha_nn::{Batch, QuantizedMatrix, WeightFormat};
use bertha_tensor::{Checkpoint, Tensor};
use bertha_train::collate::{Targets, TrainingBatch};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/families")
        .join(folder)
}

fn codes(book: CodeBook, group: usize) -> WeightFormat {
    WeightFormat::Codes { book, group }
}

fn batch() -> Batch {
    Batch::from_sequences(&[vec![3u32, 5, 7, 2], vec![4], vec![9, 8, 7, 6, 5, 4, 3]]).unwrap()
}

/// A folder's model, its weights and its configuration.
struct Source {
    model: Box<dyn Model>,
    checkpoint: Checkpoint,
    config: Config,
}

impl Source {
    fn new(folder: &str, session: &Session) -> Self {
        let dir = golden(folder);
        let config = Config::from_file(dir.join("config.json")).unwrap();
        let checkpoint = Checkpoint::open_dir(&dir).unwrap();
        let model = load_checkpoint(&checkpoint, &config, config.head(), session).unwrap();
        Self {
            model,
            checkpoint,
            config,
        }
    }

    fn quantized(
        &self,
        session: &Session,
        settings: &Settings,
        calibration: Option<&Calibration>,
    ) -> Result<Quantized, CompressError> {
        let (model, checkpoint) = (&*self.model, &self.checkpoint);
        quantize(
            session,
            model,
            checkpoint,
            &self.config,
            settings,
            calibration,
        )
    }
}

fn outputs(model: &dyn Model, session: &Session) -> Vec<f32> {
    let outputs = model
        .forward(&session.no_grad(), &batch(), &ForwardOptions::default())
        .unwrap();
    let all = [
        Some(outputs.last_hidden_state),
        outputs.logits,
        outputs.start_logits,
        outputs.end_logits,
    ];
    let values = all.iter().flatten();
    values
        .flat_map(|values| values.as_slice().unwrap().to_vec())
        .collect()
}

/// The model with each quantized weight put back as the f32 values that its codes stand for.
fn expanded(quantized: &Quantized) -> Checkpoint {
    let checkpoint = quantized.checkpoint();
    let mut tensors: BTreeMap<String, Tensor> = quantized.tensors.clone();
    for layer in &quantized.layers {
        let [rows, columns] = layer.shape;
        let matrix = QuantizedMatrix::load(&checkpoint, &layer.weight, (rows, columns));
        let values = matrix.unwrap().unwrap().dequantize().unwrap();
        tensors.insert(layer.weight.clone(), values);
    }
    Checkpoint::from_tensors("expanded", tensors, BTreeMap::new())
}

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let pairs = a.iter().zip(b);
    let left: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let all: f64 = a.iter().map(|&a| square(f64::from(a))).sum();
    (left / all).sqrt()
}

const FOLDERS: [&str; 11] = [
    "roberta_masked_lm",
    "bert_question",
    "albert_sequence",
    "distilbert_token",
    "modernbert_masked_lm",
    "longformer_sequence",
    "big_bird_token",
    "mpnet_base",
    "nomic_bert_base",
    "deberta_sequence",
    "deberta_own_masked_lm",
];

#[test]
fn what_is_saved_is_what_runs_and_what_codes_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    for folder in FOLDERS {
        for (format, double) in [
            (WeightFormat::Int8, false),
            (codes(CodeBook::Symmetric(4), 32), false),
            (codes(CodeBook::Asymmetric(2), 8), true),
            (codes(CodeBook::Nf4, 16), true),
            (codes(CodeBook::Sign, 1 << 20), false),
        ] {
            let settings = Settings {
                double_quantization: double,
                embeddings: Some(format),
                heads: true,
                ..Settings::new(format)
            };
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let session = Session::from_exec(Exec::with_isa(isa, 2));
                let source = Source::new(folder, &session);
                let quantized = source.quantized(&session, &settings, None).unwrap();
                assert!(quantized.bytes() < source.checkpoint.total_bytes());
                quantized.save(dir.path()).unwrap();
                let loaded = load(dir.path(), &session).unwrap();
                let found = outputs(&*loaded, &session);
                // Round trip: not a bit differs from what was never a file.
                let head = source.config.head();
                let unsaved = quantized.checkpoint();
                let unsaved = load_checkpoint(&unsaved, &source.config, head, &session).unwrap();
                assert_eq!(
                    found,
                    outputs(&*unsaved, &session),
                    "{folder} {format} {isa}"
                );
                let expanded = expanded(&quantized);
                let floats = load_checkpoint(&expanded, &source.config, head, &session).unwrap();
                let error = relative_error(&outputs(&*floats, &session), &found);
                // Inputs of 8 bits are rounded too.
                let limit = if format == WeightFormat::Int8 {
                    0.05
                } else {
                    1e-5
                };
                assert!(error < limit, "{folder} {format} {isa}: {error}");
                let first = first.get_or_insert_with(|| found.clone());
                let error = relative_error(first, &found);
                assert!(
                    error < limit,
                    "{folder} {format} {isa} and another: {error}"
                );
            }
        }
    }
}

#[test]
fn more_bits_are_closer_and_layers_can_be_spared() {
    let session = Session::new(Some(2)).unwrap();
    let source = Source::new("roberta_sequence", &session);
    let expected = outputs(&*source.model, &session);
    let error = |settings: &Settings| {
        let quantized = source.quantized(&session, settings, None).unwrap();
        let checkpoint = quantized.checkpoint();
        let head = source.config.head();
        let model = load_checkpoint(&checkpoint, &source.config, head, &session).unwrap();
        relative_error(&expected, &outputs(&*model, &session))
    };
    let of = |book| error(&Settings::new(codes(book, 16)));
    let [two, three, four] = [2, 3, 4].map(|bits| of(CodeBook::Symmetric(bits)));
    assert!(four < three && three < two, "{four} {three} {two}");
    assert!(error(&Settings::new(WeightFormat::Int8)) < four);

    let batches = [batch()];
    let calibration = Calibration::run(&*source.model, &session, &batches).unwrap();
    let settings = Settings::new(codes(CodeBook::Symmetric(2), 16));
    let of = (&source.checkpoint, &source.config);
    let (model, texts) = (&*source.model, (&calibration, &batches[..]));
    let ranked = sensitivities(&session, model, of, &settings, &calibration, &batches).unwrap();
    assert!(ranked.len() >= 4 && ranked.windows(2).all(|pair| pair[0].error >= pair[1].error));
    let budget = ranked[0].error * 0.9;
    let (chosen, found) = spare(&session, model, of, &settings, texts, (&ranked, budget)).unwrap();
    assert!(found <= budget && chosen.spared.contains(&ranked[0].weights[0]));
    let nothing = spare(&session, model, of, &settings, texts, (&ranked, 1e-9));
    assert!(
        nothing
            .unwrap_err()
            .to_string()
            .contains("no layer can be quantized")
    );
}

#[test]
fn methods_that_calibrate_keep_outputs_closer() {
    let session = Session::new(Some(2)).unwrap();
    let source = Source::new("bert_question", &session);
    let sequences: Vec<Vec<u32>> = (0..64u32)
        .map(|i| (0..12).map(|j| (i * 7 + j * j * 3 + i * j) % 23).collect())
        .collect();
    let batches = [Batch::from_sequences(&sequences).unwrap()];
    let calibration = Calibration::run(&*source.model, &session, &batches).unwrap();
    let error = |method| {
        let settings = Settings {
            method,
            ..Settings::new(codes(CodeBook::Symmetric(3), 16))
        };
        let quantized = source
            .quantized(&session, &settings, Some(&calibration))
            .unwrap();
        let errors = quantized
            .layers
            .iter()
            .map(|layer| layer.output_error.unwrap());
        let checkpoint = quantized.checkpoint();
        let head = source.config.head();
        load_checkpoint(&checkpoint, &source.config, head, &session).unwrap();
        errors.sum::<f64>()
    };
    let plain = error(Method::Round(GroupRange::MinMax));
    for method in [
        Method::Round(GroupRange::MeanSquare),
        Method::Gptq { damping: 0.01 },
        Method::Awq,
    ] {
        let found = error(method);
        assert!(found < plain, "{}: {found}, minmax {plain}", method.name());
    }
    // SmoothQuant is for inputs: before quantization it changes nothing.
    let settings = Settings {
        method: Method::SmoothQuant { strength: 0.5 },
        ..Settings::new(WeightFormat::Int8)
    };
    let quantized = source
        .quantized(&session, &settings, Some(&calibration))
        .unwrap();
    let checkpoint = quantized.checkpoint();
    let model = load_checkpoint(&checkpoint, &source.config, source.config.head(), &session);
    let found = outputs(&*model.unwrap(), &session);
    let error = relative_error(&outputs(&*source.model, &session), &found);
    assert!(error < 0.05, "{error}");
}

/// One of the values between layers is far beyond the others, as in real encoders: as floats it costs the others no levels.
#[test]
fn outliers_are_multiplied_as_floats() {
    let dir = tempfile::tempdir().unwrap();
    for isa in Isa::available() {
        let session = Session::from_exec(Exec::with_isa(isa, 2));
        let mut source = Source::new("roberta_masked_lm", &session);
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for name in source.checkpoint.names() {
            let mut tensor = source.checkpoint.get(name).unwrap().copy();
            if name.ends_with("LayerNorm.weight") {
                tensor.as_mut_slice::<f32>().unwrap()[3] *= 60.0;
            }
            tensors.insert(name.to_owned(), tensor);
        }
        source.checkpoint = Checkpoint::from_tensors("large", tensors, BTreeMap::new());
        let head = source.config.head();
        source.model = load_checkpoint(&source.checkpoint, &source.config, head, &session).unwrap();
        let exact = outputs(&*source.model, &session);
        let error = |threshold| {
            let settings = Settings {
                outlier_threshold: threshold,
                ..Settings::new(WeightFormat::Int8)
            };
            let quantized = source.quantized(&session, &settings, None).unwrap();
            quantized.save(dir.path()).unwrap();
            let found = outputs(&*load(dir.path(), &session).unwrap(), &session);
            relative_error(&exact, &found)
        };
        let (rounded, kept) = (error(None), error(Some(6.0)));
        assert!(kept * 2.0 < rounded, "{isa}: {kept} and {rounded}");
        // Nothing is so large.
        assert_eq!(error(Some(1e9)), rounded);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session::new(Some(1)).unwrap();
    let source = Source::new("roberta_masked_lm", &session);
    let settings = Settings::new(codes(CodeBook::Nf4, 64));
    let quantized = source.quantized(&session, &settings, None).unwrap();
    quantized.save(dir.path()).unwrap();

    let config = Config::from_file(dir.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open_dir(dir.path()).unwrap();
    let model = load(dir.path(), &session).unwrap();
    let again = quantize(&session, &*model, &checkpoint, &config, &settings, None);
    let message = again.unwrap_err().to_string();
    assert!(message.contains("is quantized already"), "{message}");

    let trained = TrainableModel::from_dir(dir.path(), config.clone(), Head::MaskedLm, &session, 0);
    let message = trained.err().unwrap().to_string();
    assert!(
        message.contains("is quantized and cannot be trained"),
        "{message}"
    );

    // Weights without the word of what they are.
    let silent = Checkpoint::from_tensors("x", quantized.tensors.clone(), BTreeMap::new());
    let message = load_checkpoint(&silent, &config, Head::MaskedLm, &session);
    let message = message.err().unwrap().to_string();
    assert!(
        message.contains("does not say in which format"),
        "{message}"
    );
    let mut wrong = quantized.metadata.clone();
    wrong
        .values_mut()
        .for_each(|format| "nf5 64".clone_into(format));
    let unknown = Checkpoint::from_tensors("x", quantized.tensors.clone(), wrong);
    let message = load_checkpoint(&unknown, &config, Head::MaskedLm, &session);
    assert!(
        message
            .err()
            .unwrap()
            .to_string()
            .contains("`nf5 64` is not known")
    );
    let mut fewer = quantized.tensors.clone();
    fewer.retain(|name, _| !name.ends_with("query.weight_scale"));
    let fewer = Checkpoint::from_tensors("x", fewer, quantized.metadata.clone());
    let message = load_checkpoint(&fewer, &config, Head::MaskedLm, &session);
    assert!(
        message
            .err()
            .unwrap()
            .to_string()
            .contains("query.weight_scale")
    );

    let mut settings = Settings::new(codes(CodeBook::Nf4, 64));
    settings.outlier_threshold = Some(6.0);
    let message = source.quantized(&session, &settings, None).unwrap_err();
    let message = message.to_string();
    assert!(message.contains("none is an outlier"), "{message}");

    let mut settings = Settings::new(WeightFormat::Int8);
    settings.keep = vec!["encoder".into()];
    let message = source
        .quantized(&session, &settings, None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no weight of the model is to be quantized"),
        "{message}"
    );
    settings.method = Method::Awq;
    let message = source
        .quantized(&session, &settings, None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("awq needs texts"), "{message}");

    let mut tensors = quantized.checkpoint();
    let mut broken: BTreeMap<String, Tensor> = BTreeMap::new();
    for name in source.checkpoint.names() {
        let mut tensor = source.checkpoint.get(name).unwrap();
        if name.ends_with("key.weight") {
            tensor = tensor.copy();
            tensor.as_mut_slice::<f32>().unwrap()[3] = f32::NAN;
        }
        broken.insert(name.to_owned(), tensor);
    }
    tensors = Checkpoint::from_tensors(tensors.path(), broken, BTreeMap::new());
    let model = load_checkpoint(&tensors, &config, Head::MaskedLm, &session).unwrap();
    let settings = Settings::new(WeightFormat::Int8);
    let message = quantize(&session, &*model, &tensors, &config, &settings, None);
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("key.weight") && message.contains("not finite"),
        "{message}"
    );
    assert!(fs::read_dir(dir.path()).unwrap().count() == 2);
}

/// Along a layer's parameters the loss curves as it was told to, whatever the iteration starts from; and nothing is left
/// changed.
#[test]
fn curvature_is_a_property_of_the_model() {
    let session = Session::new(Some(2)).unwrap();
    let dir = golden("roberta_sequence");
    let config = Config::from_file(dir.join("config.json")).unwrap();
    let head = config.head();
    let model = TrainableModel::from_dir(&dir, config, head, &session, 0).unwrap();
    let values = |model: &TrainableModel| -> Vec<Vec<f32>> {
        let values = model.parameters.iter().map(|parameter| parameter.value());
        values
            .map(|value| value.as_slice::<f32>().unwrap().to_vec())
            .collect()
    };
    let before = values(&model);
    let slices: Vec<Vec<TrainingBatch>> = vec![vec![TrainingBatch {
        batch: batch(),
        targets: Targets::Classes(vec![0, 1, 0]),
        examples: vec![0, 1, 2],
    }]];
    let found = |seed| {
        let iteration = PowerIteration {
            most: 60,
            tolerance: 1e-3,
            seed,
        };
        curvatures(&session, &model, &slices, iteration).unwrap()
    };
    let (first, second) = (found(1), found(2));
    assert!(first.len() >= 2);
    for (first, second) in first.iter().zip(&second) {
        let (a, b) = (first.eigenvalues[0], second.eigenvalues[0]);
        assert!((a - b).abs() < 0.05 * a.abs().max(1e-6), "{a} {b}");
    }
    assert_eq!(values(&model), before);
    assert!(
        model
            .parameters
            .iter()
            .all(|parameter| !parameter.is_frozen())
    );
}

/// Codes, scales and values of nf4 and fp4 in blocks of 64, and double quantization, beside bitsandbytes.
#[test]
fn four_bits_are_those_of_bitsandbytes() {
    let file = golden("../bitsandbytes/expected.safetensors");
    let expected = Checkpoint::open(file).unwrap();
    let floats = |name: &str| expected.get(name).unwrap().to_vec::<f32>().unwrap();
    let bytes = |name: &str| expected.get(name).unwrap().to_vec::<u8>().unwrap();
    // Theirs was computed in f32.
    for (level, expected) in dynamic_map().iter().zip(floats("dynamic_map")) {
        assert!(
            (level - expected).abs() <= 1.2e-7 * expected.abs(),
            "{level} {expected}"
        );
    }
    let w = floats("w");
    for (name, book) in [("nf4", CodeBook::Nf4), ("fp4", CodeBook::Fp4)] {
        let (mut codes, mut scales, mut values) =
            (vec![0; w.len()], Vec::new(), vec![0.0; w.len()]);
        let blocks = w
            .chunks(64)
            .zip(codes.chunks_mut(64))
            .zip(values.chunks_mut(64));
        for ((block, codes), values) in blocks {
            let group = fit_group(book, block, GroupRange::MinMax, None);
            encode_group(book, block, group, codes);
            decode_group(book, codes, group, values);
            scales.push(group.scale);
        }
        // Of fp4's two codes for 0 theirs takes the negative one, 8.
        let same = |(&a, &b): (&u8, &u8)| a == b || book == CodeBook::Fp4 && (a, b) == (0, 8);
        let theirs = bytes(&format!("{name}.codes"));
        assert!(codes.iter().zip(&theirs).all(same), "{name}: other codes");
        assert_eq!(scales, floats(&format!("{name}.scales")), "{name}");
        assert_eq!(values, floats(&format!("{name}.values")), "{name}");

        let double = DynamicScales::encode(&scales);
        assert_eq!(
            double.codes,
            bytes(&format!("{name}.double.codes")),
            "{name}"
        );
        let theirs = [
            format!("{name}.double.offset"),
            format!("{name}.double.scales"),
        ];
        let [offset, magnitudes] = theirs.map(|name| floats(&name));
        // Sums of scales in another order.
        for (found, expected) in [
            (double.mean, offset[0]),
            (double.magnitudes[0], magnitudes[0]),
        ] {
            assert!(
                (found - expected).abs() <= 2e-7 * expected,
                "{name}: {found} {expected}"
            );
        }
        let scales = double.decode().unwrap();
        let expected = floats(&format!("{name}.double.values"));
        for (row, ((codes, scale), expected)) in codes
            .chunks(64)
            .zip(scales)
            .zip(expected.chunks(64))
            .enumerate()
        {
            let mut values = [0.0; 64];
            decode_group(book, codes, Group { scale, zero: 0 }, &mut values);
            for (found, expected) in values.iter().zip(expected) {
                let near = 1e-5 * magnitudes[0].abs();
                assert!(
                    (found - expected).abs() <= near,
                    "{name}, block {row}: {found} {expected}"
                );
            }
        }
    }
}
