//! Random and mutated safetensors files: never a panic, and the verdict of the `safetensors` crate.

mod common;

use std::fmt;

use bertha_tensor::{Checkpoint, FileError};
use common::{Folder, raw_file};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use safetensors::SafeTensors;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Opens the bytes with both readers and compares what they say; if they accept, reads every tensor.
fn compare(folder: &Folder, bytes: &[u8]) -> TestCaseResult {
    let ours = folder.open(bytes);
    let theirs = SafeTensors::deserialize(bytes);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => same_content(ours, theirs),
        (Err(_), Err(_)) => Ok(()),
        // What the other reader accepts and this one refuses: types without kernels, and names that occur twice.
        (Err(FileError::UnsupportedDType { .. }), Ok(_)) => Ok(()),
        (Err(_), Ok(_)) if repeats_a_name(bytes) => Ok(()),
        (Err(error), Ok(_)) => Err(TestCaseError::fail(format!("only we refuse: {error}"))),
        (Ok(_), Err(error)) => Err(TestCaseError::fail(format!("only we accept: {error}"))),
    }
}

/// Whether the header has a key twice, of which the other reader sees the last alone.
fn repeats_a_name(bytes: &[u8]) -> bool {
    struct Names(Vec<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
            struct Keys;
            impl<'de> Visitor<'de> for Keys {
                type Value = Names;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                    let mut names = Vec::new();
                    while let Some((name, IgnoredAny)) = map.next_entry()? {
                        names.push(name);
                    }
                    Ok(Names(names))
                }
            }
            deserializer.deserialize_map(Keys)
        }
    }
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let Names(mut names) = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let count = names.len();
    names.sort();
    names.dedup();
    names.len() < count
}

fn same_content(ours: &Checkpoint, theirs: &SafeTensors<'_>) -> TestCaseResult {
    prop_assert_eq!(ours.len(), theirs.len());
    for (name, expected) in theirs.tensors() {
        let tensor = ours.get(&name)?;
        prop_assert_eq!(tensor.shape(), expected.shape());
        prop_assert_eq!(
            tensor.dtype().safetensors_name(),
            format!("{:?}", expected.dtype())
        );
        if tensor.is_mapped() {
            prop_assert_eq!(tensor.as_bytes()?, expected.data());
        }
        let _ = tensor.to_string();
        prop_assert_eq!(
            tensor.to_dtype(bertha_tensor::DType::F32)?.numel(),
            tensor.numel()
        );
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Set(usize, u8),
    Cut(usize),
    Append(Vec<u8>),
    Remove(usize, usize),
    Double(usize, usize),
    Insert(usize, &'static str),
    Length(u64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0..100_000_usize;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        // Digits where digits are: other offsets and shapes in a header that still parses.
        (at(), b'0'..=b'9').prop_map(|(at, byte)| Mutation::Set(at, byte)),
        at().prop_map(Mutation::Cut),
        prop::collection::vec(any::<u8>(), 1..20).prop_map(Mutation::Append),
        (at(), 1..40_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        (at(), 1..80_usize).prop_map(|(at, len)| Mutation::Double(at, len)),
        (
            at(),
            prop::sample::select(vec![
                "0",
                "9",
                "-",
                "1e9",
                ".5",
                ",",
                "[",
                "]",
                "{",
                "}",
                "\"",
                ":",
                "null",
                "\\u0000",
                "18446744073709551615",
                "F32",
                "F16",
                "\"__metadata__\":{},",
                "\u{feff}",
            ])
        )
            .prop_map(|(at, text)| Mutation::Insert(at, text)),
        prop_oneof![0..400_u64, any::<u64>(), Just(u64::MAX), Just(100_000_001)]
            .prop_map(Mutation::Length),
    ]
}

impl Mutation {
    /// `Set` of a digit aims at the digits of the file alone.
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match *self {
            Mutation::Flip(at, bit) => bytes[at % len] ^= bit,
            Mutation::Set(at, byte) if byte.is_ascii_digit() => {
                let digits: Vec<usize> = (8..len).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[digits[at % digits.len()]] = byte;
                }
            }
            Mutation::Set(at, byte) => bytes[at % len] = byte,
            Mutation::Cut(at) => bytes.truncate(at % len),
            Mutation::Append(ref more) => bytes.extend(more),
            Mutation::Remove(at, count) => {
                let at = at % len;
                bytes.drain(at..(at + count).min(len));
            }
            Mutation::Double(at, count) => {
                let at = at % len;
                let part = bytes[at..(at + count).min(len)].to_vec();
                bytes.splice(at..at, part);
            }
            Mutation::Insert(at, text) => {
                let at = at % len;
                bytes.splice(at..at, text.bytes());
            }
            Mutation::Length(header) if len >= 8 => {
                bytes[..8].copy_from_slice(&header.to_le_bytes());
            }
            Mutation::Length(_) => {}
        }
    }
}

/// A valid file with tensors of several types and shapes, one of them empty, one a scalar.
fn valid() -> (String, Vec<u8>) {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"#,
        r#""emb.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#,
        r#""mask":{"dtype":"BOOL","shape":[3],"data_offsets":[24,27]},"#,
        r#""ids":{"dtype":"I64","shape":[],"data_offsets":[27,35]},"#,
        r#""none":{"dtype":"F16","shape":[0,7],"data_offsets":[35,35]},"#,
        r#""half":{"dtype":"BF16","shape":[5],"data_offsets":[35,45]}}"#
    );
    (header.to_string(), (0..45).collect())
}

/// Headers that parse and may be wrong: a few tensors with random types, shapes and offsets that mostly follow on.
fn entries() -> impl Strategy<Value = (String, usize)> {
    let dtypes = vec![
        "F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "U16", "F8_E5M2", "X",
    ];
    let entry = (
        prop::sample::select(vec!["a", "b", "c", "d", "ünï"]),
        prop::sample::select(dtypes),
        prop::collection::vec(0..4_usize, 0..3),
        prop_oneof![9 => Just(0_isize), 1 => -3..4_isize],
        prop_oneof![9 => Just(0_isize), 1 => -3..4_isize],
    );
    (
        prop::collection::vec(entry, 0..5),
        any::<bool>(),
        0..20_usize,
    )
        .prop_map(|(list, sloppy, extra)| {
            let mut at = 0;
            let mut parts = Vec::new();
            for (name, dtype, shape, shift, grow) in list {
                let size = match dtype {
                    "F64" | "I64" => 8,
                    "F32" | "I32" => 4,
                    "F16" | "BF16" | "U16" => 2,
                    _ => 1,
                };
                let (shift, grow) = if sloppy { (shift, grow) } else { (0, 0) };
                let start = (at as isize + shift).max(0) as usize;
                let bytes = shape.iter().product::<usize>() * size;
                let end = (start as isize + bytes as isize + grow).max(0) as usize;
                parts.push(format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            ));
                at = end;
            }
            let data_len = if extra == 0 { at + 1 } else { at };
            (format!("{{{}}}", parts.join(",")), data_len)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn mutated_files(mutations in prop::collection::vec(mutation(), 0..4), fix_length in any::<bool>()) {
        let (header, data) = valid();
        let mut bytes = raw_file(&header, &data);
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        // Half of the time the length is made to fit again, so that the JSON is reached.
        if fix_length && let Some(end) = bytes.windows(2).rposition(|pair| pair == b"}}") && end >= 6 {
            bytes[..8].copy_from_slice(&(end as u64 + 2 - 8).to_le_bytes());
        }
        compare(&Folder::new(), &bytes)?;
    }

    #[test]
    fn made_up_headers((header, data_len) in entries()) {
        compare(&Folder::new(), &raw_file(&header, &vec![1; data_len]))?;
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), claim in 0..64_u64, honest in any::<bool>()) {
        let mut bytes = bytes;
        if honest && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&claim.to_le_bytes());
        }
        compare(&Folder::new(), &bytes)?;
    }
}

#[test]
fn the_unchanged_file_is_valid() {
    let (header, data) = valid();
    assert_eq!(
        Folder::new().open(&raw_file(&header, &data)).unwrap().len(),
        5
    );
}
