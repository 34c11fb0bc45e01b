//! Semantic textual similarity: the real all-MiniLM-L6-v2 ranks sentence pairs as well here as in
//! sentence-transformers (`tests/golden/stsb/`).

mod real_model;

use std::path::Path;

use bertha::{Encoder, Precision};

/// Largest difference of Spearman's correlation, of f32 as the fixtures' README states it.
const TOLERANCES: [(Precision, f64); 3] = [
    (Precision::F32, 0.0005),
    (Precision::Bf16, 0.001),
    (Precision::Int8, 0.005),
];

struct Pairs {
    scores: Vec<f64>,
    first: Vec<String>,
    second: Vec<String>,
}

fn read_pairs(folder: &Path) -> Pairs {
    let text = std::fs::read_to_string(folder.join("test.tsv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|&found| found == name).unwrap();
    let (score, first, second) = (column("score"), column("sentence1"), column("sentence2"));
    let mut pairs = Pairs {
        scores: Vec::new(),
        first: Vec::new(),
        second: Vec::new(),
    };
    for line in lines {
        let cells: Vec<&str> = line.split('\t').collect();
        pairs.scores.push(cells[score].parse().unwrap());
        pairs.first.push(cells[first].to_owned());
        pairs.second.push(cells[second].to_owned());
    }
    pairs
}

/// Ranks from 1 on; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tie in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (tie.len() + 1) as f64 / 2.0;
        tie.iter().for_each(|&i| ranks[i] = mean);
        start += tie.len();
    }
    ranks
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb).sqrt()
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    pearson(&ranks(a), &ranks(b))
}

#[test]
fn spearman_of_known_lists() {
    assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    assert!((spearman(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-15);
    assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-15);
    // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 4, 3, 5])
    assert!(
        (spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 4.0, 3.0, 5.0]) - 0.6668859288553503)
            .abs()
            < 1e-12
    );
}

#[test]
fn pairs_rank_as_in_sentence_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stsb");
    let pairs = read_pairs(&folder);
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(expected["pairs"], pairs.scores.len());

    let expected = expected["spearman_cosine"].as_f64().unwrap();
    for (precision, tolerance) in TOLERANCES {
        if real_model::is_too_slow(precision) {
            continue;
        }
        let builder = Encoder::builder(real_model::minilm()).precision(precision);
        let found = spearman(&cosines(&builder.build().unwrap(), &pairs), &pairs.scores);
        let name = precision.name();
        println!("{name}: Spearman {found:.6}, sentence-transformers {expected:.6}");
        assert!(
            (found - expected).abs() <= tolerance,
            "{name}: Spearman {found:.6}, expected {expected:.6}"
        );
    }
}

/// The cosine of each pair.
fn cosines(encoder: &Encoder, pairs: &Pairs) -> Vec<f64> {
    let first = encoder.embed(&pairs.first).unwrap();
    let second = encoder.embed(&pairs.second).unwrap();
    // The embeddings are normalised, so that the dot product is the cosine.
    first
        .rows()
        .into_iter()
        .zip(second.rows())
        .map(|(a, b)| {
            a.iter()
                .zip(b)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum()
        })
        .collect()
}
