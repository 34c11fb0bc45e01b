//! Released pages really leave memory. Alone in this file, since it measures the whole process.
#![cfg(target_os = "linux")]

mod common;

use bertha_tensor::{Checkpoint, DType, Tensor, save_safetensors};
use common::{Folder, raw_file};

/// Resident bytes of mapped files.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssFile:"))
        .unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

const MIB: usize = 1 << 20;
/// What may come and go around a measurement: the program itself, and the neighbours of a touched page, since a system
/// may map files by huge pages of 2 MiB.
const SLACK: usize = 5 * MIB;

fn sum(tensor: &Tensor) -> f64 {
    tensor
        .as_slice::<f32>()
        .unwrap()
        .iter()
        .map(|&value| f64::from(value))
        .sum()
}

#[test]
fn released_pages_leave_memory_and_come_back() {
    let folder = Folder::new();
    let path = folder.join("model.safetensors");
    let rows = 4096;
    let values = |seed: usize| {
        let values = (0..rows * 1024)
            .map(|i| ((i + seed) % 1000) as f32)
            .collect();
        Tensor::from_vec(values, &[rows, 1024]).unwrap()
    };
    let size = values(0).size_in_bytes();
    assert_eq!(size, 16 * MIB);
    save_safetensors(
        &path,
        &[("a", &values(1)), ("b", &values(2)), ("c", &values(3))],
        None,
    )
    .unwrap();

    let start = resident();
    let grown = || resident().saturating_sub(start);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(grown() < SLACK, "opening reads the header alone");

    // Packing tensor by tensor, each released once it is packed: never more than one in memory.
    let mut sums = Vec::new();
    for name in ["a", "b", "c"] {
        let tensor = checkpoint.get(name).unwrap();
        sums.push(sum(&tensor));
        assert!(
            (size - SLACK..size + SLACK).contains(&grown()),
            "{name}: {}",
            grown()
        );
        checkpoint.release_pages(name);
        assert!(grown() < SLACK, "{name}: {} bytes stayed", grown());
    }

    // A large tensor by parts of its rows.
    let tensor = checkpoint.get("b").unwrap();
    let mut total = 0.0;
    for start in (0..rows).step_by(512) {
        let part = tensor.narrow(0, start, 512).unwrap();
        total += sum(&part);
        assert!(grown() < size / 8 + SLACK, "row {start}: {}", grown());
        part.release_pages();
    }
    assert_eq!(total, sums[1]);
    assert!(grown() < SLACK);

    // Everything at once; a second reading is the same.
    for (name, &expected) in ["a", "b", "c"].into_iter().zip(&sums) {
        assert_eq!(sum(&checkpoint.get(name).unwrap()), expected);
    }
    assert!(grown() > 3 * size - SLACK);
    checkpoint.release_all_pages();
    assert!(grown() < SLACK);

    // A tensor that is not aligned in its file is copied to be read; then its pages go by themselves.
    let data = tensor.to_dtype(DType::F32).unwrap();
    let header = format!(
        r#"{{"pad":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"x":{{"dtype":"F32","shape":[{}],"data_offsets":[1,{}]}}}} "#,
        data.numel(),
        size + 1
    );
    let bytes = raw_file(&header, &[&[0], data.as_bytes().unwrap()].concat());
    checkpoint.release_all_pages();
    let unaligned = folder.open(&bytes).unwrap().get("x").unwrap();
    let copied = !unaligned
        .as_bytes()
        .unwrap()
        .as_ptr()
        .addr()
        .is_multiple_of(4);
    assert_eq!(sum(&unaligned), sums[1]);
    assert!(!copied || grown() < SLACK, "{} bytes stayed", grown());
}
