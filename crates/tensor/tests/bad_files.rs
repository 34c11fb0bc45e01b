//! Files that are not what they should be: an error that says which file, which tensor, what was found and expected.

mod common;

use std::path::Path;

use bertha_tensor::{Checkpoint, DType, FileError, Tensor, save_safetensors};
use common::{Folder, raw_file};

/// The error of opening these bytes, without the folder's path.
fn error_of(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let error = folder
        .open(bytes)
        .expect_err("this file is not valid")
        .to_string();
    let path = folder.join("x.safetensors");
    match error.strip_prefix(&format!("{}: ", path.display())) {
        Some(rest) => rest.to_string(),
        None => panic!("the message does not start with the file: {error}"),
    }
}

fn error_of_header(header: &str, data_len: usize) -> String {
    error_of(&raw_file(header, &vec![0; data_len]))
}

const DAMAGED: &str = "the file is damaged or incomplete: fetch it again";

#[test]
fn files_cut_off_or_of_another_kind() {
    assert_eq!(
        error_of(b""),
        format!("the file has 0 bytes, but the length of its header alone takes 8; {DAMAGED}")
    );
    assert_eq!(
        error_of(b"PK\x03\x04"),
        format!("the file has 4 bytes, but the length of its header alone takes 8; {DAMAGED}")
    );
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let whole = raw_file(header, &[0; 8]);
    assert_eq!(
        error_of(&whole[..20]),
        format!(
            "the header claims {} bytes, but only 12 follow; {DAMAGED}",
            header.len()
        )
    );
    assert_eq!(
        error_of(&whole[..whole.len() - 3]),
        format!(
            "tensor `a`: its data ends at byte 8, but the file has only 5 bytes of data; {DAMAGED}"
        )
    );
    let mut long = whole.clone();
    long.extend([0; 4]);
    assert_eq!(
        error_of(&long),
        format!("the tensors cover 8 bytes, but the file has 12 bytes of data; {DAMAGED}")
    );
    let text = error_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    assert!(
        text.contains("more than the limit of 100000000; this is no safetensors file"),
        "{text}"
    );
    let text = error_of(&[0xff; 32]);
    assert!(
        text.contains("the header claims 18446744073709551615 bytes"),
        "{text}"
    );
}

#[test]
fn headers_that_are_no_header() {
    for (header, says) in [
        (
            "",
            "the header is no JSON object of tensors: EOF while parsing",
        ),
        (
            "{",
            "the header is no JSON object of tensors: EOF while parsing",
        ),
        (
            "[]",
            "invalid type: sequence, expected an object with the names of tensors",
        ),
        ("{} x", "trailing characters"),
        (r#"{"a":1}"#, "tensor `a`: `dtype` is missing"),
        (
            r#"{"a":{"dtype":7}}"#,
            "tensor `a`: `dtype` is 7, expected a string",
        ),
        (r#"{"a":{"dtype":"F32"}}"#, "tensor `a`: `shape` is missing"),
        (
            r#"{"a":{"dtype":"F32","shape":[1]}}"#,
            "tensor `a`: `data_offsets` is missing",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            "tensor `a`: `shape` is [-1], expected an array of non-negative integers",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#,
            "tensor `a`: `shape` is [1.0], expected an array of non-negative integers",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}}"#,
            "expected an array of non-negative integers",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
            "tensor `a`: `data_offsets` is [0,4,8], expected two integers",
        ),
        (
            r#"{"__metadata__":[]}"#,
            "`__metadata__` is [], expected an object of strings",
        ),
        (
            r#"{"__metadata__":{"a":1}}"#,
            "`__metadata__` key `a` is 1, expected a string",
        ),
        (
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            "the header has `__metadata__` twice",
        ),
    ] {
        let text = error_of_header(header, 4);
        assert!(text.contains(says), "{header}\n{text}");
        assert!(text.ends_with("fetch it again"), "{text}");
    }
    // What is not UTF-8, and what is nested too deep.
    assert!(error_of(&raw_file("{\"a\u{1}", b"")).contains("control character"));
    let mut bytes = raw_file(r#"{"a":{}}"#, b"");
    bytes[10] = 0xff;
    assert!(error_of(&bytes).contains("no JSON object"));
    let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
    assert!(error_of(&raw_file(&deep, b"")).contains("recursion limit"));
    // A value as long as a file does not become a message as long as a file.
    let long = format!(
        r#"{{"a":{{"dtype":"F32","shape":"{}"}}}}"#,
        "9".repeat(100_000)
    );
    assert!(error_of(&raw_file(&long, b"")).len() < 300);
}

#[test]
fn offsets_that_do_not_fit() {
    let two = |a: [usize; 2], b: [usize; 2]| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a:?}}},"b":{{"dtype":"I8","shape":[4],"data_offsets":{b:?}}}}}"#
        )
    };
    assert!(
        Folder::new()
            .open(&raw_file(&two([0, 4], [4, 8]), &[0; 8]))
            .is_ok()
    );
    assert!(
        Folder::new()
            .open(&raw_file(&two([4, 8], [0, 4]), &[0; 8]))
            .is_ok()
    );
    for (a, b, says) in [
        (
            [0, 4],
            [2, 6],
            "tensor `b`: its data starts at byte 2, inside tensor `a`, which ends at 4",
        ),
        (
            [0, 4],
            [0, 4],
            "tensor `b`: its data starts at byte 0, inside tensor `a`, which ends at 4",
        ),
        (
            [0, 4],
            [5, 9],
            "tensor `b`: its data starts at byte 5, but bytes from 4 on belong to no tensor",
        ),
        (
            [1, 5],
            [5, 9],
            "tensor `a`: its data starts at byte 1, but bytes from 0 on belong to no tensor",
        ),
        (
            [0, 4],
            [4, 9],
            "tensor `b`: shape [4] of I8 needs 4 bytes, but `data_offsets` is [4, 9]",
        ),
        (
            [4, 0],
            [4, 8],
            "tensor `a`: shape [4] of U8 needs 4 bytes, but `data_offsets` is [4, 0]",
        ),
        (
            [0, 4],
            [100, 104],
            "tensor `b`: its data ends at byte 104, but the file has only 9 bytes of data",
        ),
    ] {
        let text = error_of_header(&two(a, b), 9);
        assert!(text.starts_with(says), "{text}");
    }
    let max = usize::MAX;
    for header in [
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{},{max}]}}}}"#,
            max - 4
        ),
        format!(r#"{{"a":{{"dtype":"F64","shape":[{max},{max}],"data_offsets":[0,8]}}}}"#),
        format!(r#"{{"a":{{"dtype":"F64","shape":[0,{max},{max}],"data_offsets":[0,0]}}}}"#),
        format!(r#"{{"a":{{"dtype":"U8","shape":[{max}],"data_offsets":[0,{max}]}}}}"#),
    ] {
        assert!(
            error_of_header(&header, 8).starts_with("tensor `a`: "),
            "{header}"
        );
    }
}

#[test]
fn unknown_dtypes_and_repeated_names() {
    for dtype in ["F8_E4M3", "U16", "f32", ""] {
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[0],"data_offsets":[0,0]}}}}"#);
        assert_eq!(
            error_of_header(&header, 0),
            format!(
                "tensor `w` has dtype {dtype}, which is not supported (supported: F64, F32, F16, BF16, I64, I32, \
                 I8, U8, BOOL); convert the model to one of these"
            )
        );
    }
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    assert_eq!(
        error_of_header(header, 8),
        format!("tensor `a`: the header lists it twice; {DAMAGED}")
    );
}

fn open_error(path: &Path) -> FileError {
    Checkpoint::open(path).expect_err("this is not valid")
}

#[test]
fn what_is_not_there() {
    let folder = Folder::new();
    let missing = folder.join("none.safetensors");
    let text = open_error(&missing).to_string();
    assert!(
        text.starts_with(&format!("{}: cannot open the weights: ", missing.display())),
        "{text}"
    );
    let dir = missing.parent().unwrap();
    assert!(matches!(open_error(dir), FileError::NoWeights { .. }));
    let text = Checkpoint::open_dir(folder.join("nowhere"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("nowhere: cannot open the model folder: "),
        "{text}"
    );
    folder.write("pytorch_model.bin", "PK");
    let text = open_error(dir).to_string();
    assert!(
        text.contains("the weights are in `pytorch_model.bin`, a Python pickle"),
        "{text}"
    );

    let one = Tensor::zeros(DType::F32, &[2]).unwrap();
    let path = folder.join("x.safetensors");
    let names = ["bert.pooler.dense.weight", "bert.embeddings.weight"];
    save_safetensors(&path, &names.map(|name| (name, &one)), None).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(
        checkpoint
            .get("pooler.dense.weight")
            .unwrap_err()
            .to_string(),
        format!(
            "{}: no tensor `pooler.dense.weight` among the 2 of this file; similar names: `bert.pooler.dense.weight`",
            path.display()
        )
    );
    assert!(checkpoint.info("bert").is_err());
    assert!(checkpoint.file_of("bert").is_none() && !checkpoint.contains("bert"));
}

#[test]
fn indices_that_are_wrong() {
    let folder = Folder::new();
    let one = Tensor::zeros(DType::F32, &[2]).unwrap();
    save_safetensors(
        folder.join("a.safetensors"),
        &[("x", &one), ("y", &one)],
        None,
    )
    .unwrap();
    let error_of = |index: &str| {
        let path = folder.write("model.safetensors.index.json", index);
        let text = Checkpoint::open_dir(path.parent().unwrap())
            .unwrap_err()
            .to_string();
        match text.strip_prefix(&format!("{}: ", path.display())) {
            Some(rest) => rest.to_string(),
            None => panic!("the message does not start with the index: {text}"),
        }
    };
    for (index, says) in [
        ("", "this is no index of tensors: EOF"),
        ("[]", "this is no index of tensors: "),
        (
            "{}",
            "this is no index of tensors: missing field `weight_map`",
        ),
        (
            r#"{"weight_map":3}"#,
            "expected an object with the names of tensors",
        ),
        (r#"{"weight_map":{}}"#, "`weight_map` names no tensor"),
        (
            r#"{"weight_map":{"x":1}}"#,
            "`weight_map` key `x` is 1, expected a file name",
        ),
        (
            r#"{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}"#,
            "`weight_map` lists `x` twice",
        ),
        (
            r#"{"weight_map":{"x":"../a.safetensors"}}"#,
            "tensor `x` is said to be in `../a.safetensors`; only a file inside the index's own folder is accepted",
        ),
        (
            r#"{"weight_map":{"x":"a.safetensors","z":"a.safetensors"}}"#,
            "tensor `z`: the index says that it is in `a.safetensors`, but that file does not have it",
        ),
        (
            r#"{"weight_map":{"p":"b.safetensors","q":"b.safetensors","x":"a.safetensors"}}"#,
            "shard `b.safetensors` is missing, which holds tensor `p` and 1 more; fetch it into the same folder",
        ),
    ] {
        let text = error_of(index);
        assert!(text.contains(says), "{index}\n{text}");
    }
    // A shard that is damaged is named itself.
    folder.write("b.safetensors", [1, 0, 0]);
    let path = folder.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"p":"b.safetensors"}}"#,
    );
    let text = Checkpoint::open(path).unwrap_err().to_string();
    assert!(
        text.contains("b.safetensors: the file has 3 bytes"),
        "{text}"
    );
    // A folder in a shard's place.
    std::fs::create_dir(folder.join("c.safetensors")).unwrap();
    let path = folder.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"p":"c.safetensors"}}"#,
    );
    let text = Checkpoint::open(path).unwrap_err().to_string();
    assert!(
        text.contains("c.safetensors: this is not a regular file"),
        "{text}"
    );
}

#[test]
fn names_that_cannot_be_saved_and_targets_that_cannot_be_written() {
    let folder = Folder::new();
    let path = folder.write("x.safetensors", "before");
    let one = Tensor::zeros(DType::F32, &[2]).unwrap();
    for names in [["a", "a"], ["a", "__metadata__"]] {
        let error = save_safetensors(&path, &names.map(|name| (name, &one)), None).unwrap_err();
        assert!(
            matches!(error, FileError::MalformedTensor { .. }),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    let nowhere = folder.join("none").join("x.safetensors");
    let text = save_safetensors(&nowhere, &[("a", &one)], None)
        .unwrap_err()
        .to_string();
    assert!(text.starts_with(&nowhere.display().to_string()), "{text}");
    assert_eq!(folder.names(), ["x.safetensors"]);
}
