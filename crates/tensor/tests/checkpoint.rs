//! Safetensors: what is written is what is read, here and by the `safetensors` crate; sharded or not, aligned or not.

mod common;

use std::collections::{BTreeMap, HashMap};

use bertha_tensor::{Checkpoint, DType, Element, Tensor, bf16, f16, save_safetensors};
use common::{Folder, raw_file};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// One tensor of every dtype, whose elements are all different where the type has that many.
fn one_of_each() -> Vec<(String, Tensor)> {
    let counting = Tensor::from_vec((0..30_i64).map(|i| i - 7).collect(), &[5, 3, 2]).unwrap();
    DType::ALL
        .into_iter()
        .map(|dtype| (format!("layer.{dtype}"), counting.to_dtype(dtype).unwrap()))
        .collect()
}

fn borrowed(tensors: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect()
}

fn assert_same(a: &Tensor, b: &Tensor) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()));
    assert_eq!(
        a.contiguous().as_bytes().unwrap(),
        b.contiguous().as_bytes().unwrap()
    );
}

fn theirs(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::Bool => Dtype::BOOL,
    }
}

#[test]
fn every_dtype_survives_a_file() {
    let folder = Folder::new();
    let path = folder.join("model.safetensors");
    let tensors = one_of_each();
    let metadata = BTreeMap::from([("model".to_string(), "tïny \"quoted\"".to_string())]);
    save_safetensors(&path, &borrowed(&tensors), Some(&metadata)).unwrap();

    let read = Checkpoint::open_dir(path.parent().unwrap()).unwrap();
    assert_eq!(
        (read.len(), read.path()),
        (DType::ALL.len(), path.as_path())
    );
    assert_eq!(read.metadata()["model"], metadata["model"]);
    assert_eq!(read.metadata()["format"], "pt");
    let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert!(read.names().eq(names));
    assert_eq!(
        read.total_bytes(),
        tensors
            .iter()
            .map(|(_, tensor)| tensor.size_in_bytes())
            .sum::<usize>()
    );
    for (name, tensor) in &tensors {
        let found = read.get(name).unwrap();
        assert_same(&found, tensor);
        assert!(found.is_mapped() || found.dtype() == DType::Bool);
        let info = read.info(name).unwrap();
        assert_eq!((info.dtype, &*info.shape), (tensor.dtype(), tensor.shape()));
        assert_eq!(read.file_of(name), Some(path.as_path()));
    }
    // A mapped tensor outlives its checkpoint, and writing to it leaves the file alone.
    let mut x = read.get("layer.f32").unwrap();
    drop(read);
    x.as_mut_slice::<f32>().unwrap().fill(0.5);
    assert!(!x.is_mapped());
    let again = Checkpoint::open(&path).unwrap().get("layer.f32").unwrap();
    assert_same(&again, &tensors[0].1);
}

#[test]
fn the_safetensors_crate_reads_what_we_write() {
    let folder = Folder::new();
    let path = folder.join("x.safetensors");
    let mut tensors = one_of_each();
    // Views of every kind are written in row-major order; so are tensors without elements and without dimensions.
    let base = tensors[1].1.clone();
    for (name, view) in [
        ("transposed", base.transpose(0, 2).unwrap()),
        ("column", base.select(2, 1).unwrap()),
        (
            "wide",
            base.narrow(0, 1, 1)
                .unwrap()
                .broadcast_to(&[4, 3, 2])
                .unwrap(),
        ),
        ("empty", base.narrow(1, 3, 0).unwrap()),
        (
            "scalar",
            base.select(0, 4)
                .unwrap()
                .select(0, 2)
                .unwrap()
                .select(0, 1)
                .unwrap(),
        ),
    ] {
        tensors.push((name.to_string(), view));
    }
    save_safetensors(&path, &borrowed(&tensors), None).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), tensors.len());
    for (name, tensor) in &tensors {
        let found = read.tensor(name).unwrap();
        assert_eq!(
            (found.dtype(), found.shape()),
            (theirs(tensor.dtype()), tensor.shape())
        );
        assert_eq!(
            found.data(),
            tensor.contiguous().as_bytes().unwrap(),
            "{name}"
        );
        // Each tensor starts at a multiple of its element size, so that mapping it never copies.
        let at = found.data().as_ptr().addr() - bytes.as_ptr().addr();
        assert!(
            found.data().is_empty() || at.is_multiple_of(tensor.dtype().size()),
            "{name} at {at}"
        );
    }
    // The order of the list and an earlier file make no difference to the bytes.
    tensors.reverse();
    save_safetensors(&path, &borrowed(&tensors), None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn we_read_what_the_safetensors_crate_writes() {
    let folder = Folder::new();
    let tensors = one_of_each();
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = tensor.as_bytes().unwrap();
            let view = TensorView::new(theirs(tensor.dtype()), tensor.shape().to_vec(), bytes);
            (name.as_str(), view.unwrap())
        })
        .collect();
    let metadata = HashMap::from([("key".to_string(), "value".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
    let read = folder.open(&bytes).unwrap();
    assert_eq!(read.metadata()["key"], "value");
    for (name, tensor) in &tensors {
        assert_same(&read.get(name).unwrap(), tensor);
    }
}

/// Puts `values` at every distance from alignment into a file and reads them in every way.
fn check_unaligned<T: Element + bytemuck::NoUninit>(values: &[T]) {
    let folder = Folder::new();
    let data: &[u8] = bytemuck::cast_slice(values);
    for shift in 0..=9 {
        let header = format!(
            r#"{{"pad":{{"dtype":"U8","shape":[{shift}],"data_offsets":[0,{shift}]}},"x":{{"dtype":"{}","shape":[2,{}],"data_offsets":[{shift},{}]}}}}"#,
            T::DTYPE.safetensors_name(),
            values.len() / 2,
            shift + data.len()
        );
        let bytes = raw_file(&header, &[&vec![0xee; shift][..], data].concat());
        let checkpoint = folder.open(&bytes).unwrap();
        let x = checkpoint.get("x").unwrap();
        assert_eq!(x.to_vec::<T>().unwrap(), values);
        assert_eq!(x.as_bytes().unwrap(), data);
        let slice = x.as_slice::<T>().unwrap();
        assert_eq!(slice, values);
        let in_place = slice.as_ptr().cast() == x.as_bytes().unwrap().as_ptr();
        let aligned = x
            .as_bytes()
            .unwrap()
            .as_ptr()
            .addr()
            .is_multiple_of(align_of::<T>());
        assert_eq!(in_place, aligned || T::DTYPE == DType::Bool);
        assert_eq!(
            x.as_slice::<T>().unwrap().as_ptr(),
            slice.as_ptr(),
            "copied once"
        );

        let row = x.select(0, 1).unwrap();
        assert_eq!(row.as_slice::<T>().unwrap(), &values[values.len() / 2..]);
        assert_eq!(
            row.select(0, 0).unwrap().item::<T>().unwrap(),
            values[values.len() / 2]
        );
        let column = x.transpose(0, 1).unwrap();
        assert_eq!(column.view::<T>().unwrap().t(), x.view::<T>().unwrap());
        assert_eq!(
            column.transpose(0, 1).unwrap().to_vec::<T>().unwrap(),
            values
        );
        assert_eq!(
            format!("{x:?}"),
            format!("{:?}", Tensor::from_slice(values, x.shape()).unwrap())
        );
        let same = x.to_dtype(DType::F64).unwrap();
        let expected = Tensor::from_slice(values, x.shape())
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap();
        assert_same(&same, &expected);
        let mut copy = x.clone();
        copy.as_mut_slice::<T>().unwrap()[0] = T::default();
        assert_eq!(x.to_vec::<T>().unwrap(), values);
    }
}

#[test]
fn tensors_at_any_byte_of_a_file_read_right() {
    check_unaligned(&[1.5_f32, -2.0, 3.25, f32::INFINITY, 1e-40, 7.0]);
    check_unaligned(&[1.5_f64, -2.0, 3.25, 1e300]);
    check_unaligned(&[bf16::ONE, bf16::MAX, bf16::EPSILON, bf16::ZERO]);
    check_unaligned(&[f16::ONE, f16::MAX, f16::EPSILON, f16::ZERO]);
    check_unaligned(&[1_i64, -1, i64::MIN, i64::MAX]);
    check_unaligned(&[1_i32, -1, i32::MIN, i32::MAX]);
    check_unaligned(&[1_u8, 255]);
    check_unaligned(&[1_i8, -128]);
    check_unaligned(&[true, false, false, true]);
}

#[test]
fn any_byte_of_a_bool_tensor_is_a_truth_value() {
    let folder = Folder::new();
    let header = r#"{"mask":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}"#;
    let checkpoint = folder.open(&raw_file(header, &[0, 1, 2, 255])).unwrap();
    let mask = checkpoint.get("mask").unwrap();
    assert_eq!(mask.as_slice::<bool>().unwrap(), [false, true, true, true]);
    assert_eq!(mask.as_bytes().unwrap(), [0, 1, 1, 1]);
}

/// Two shards and their index, as `transformers` writes them.
fn shards(folder: &Folder) -> Vec<(String, Tensor)> {
    let tensors = one_of_each();
    let mut map = BTreeMap::new();
    for (shard, part) in [
        ("a.safetensors", &tensors[..4]),
        ("b.safetensors", &tensors[4..]),
    ] {
        save_safetensors(folder.join(shard), &borrowed(part), None).unwrap();
        map.extend(part.iter().map(|(name, _)| (name.clone(), shard)));
    }
    let index =
        serde_json::json!({"metadata": {"total_size": 1234, "by": "test"}, "weight_map": map});
    folder.write("model.safetensors.index.json", index.to_string());
    tensors
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = Folder::new();
    let tensors = shards(&folder);
    let index = folder.join("model.safetensors.index.json");
    let dir = index.parent().unwrap();
    for read in [
        Checkpoint::open_dir(dir).unwrap(),
        Checkpoint::open(dir).unwrap(),
        Checkpoint::open(&index).unwrap(),
    ] {
        assert_eq!((read.len(), read.path()), (tensors.len(), dir));
        assert_eq!(read.metadata()["total_size"], "1234");
        assert_eq!(read.metadata()["by"], "test");
        for (i, (name, tensor)) in tensors.iter().enumerate() {
            assert!(read.contains(name));
            assert_same(&read.get(name).unwrap(), tensor);
            let shard = if i < 4 {
                "a.safetensors"
            } else {
                "b.safetensors"
            };
            assert_eq!(read.file_of(name), Some(folder.join(shard).as_path()));
            read.release_pages(name);
            assert_same(&read.get(name).unwrap(), tensor);
        }
        read.release_all_pages();
        read.release_pages("no such tensor");
        for (name, tensor) in &tensors {
            assert_same(&read.get(name).unwrap(), tensor);
        }
    }
    // One file, if it is there, goes before an index.
    save_safetensors(
        folder.join("model.safetensors"),
        &borrowed(&tensors[..1]),
        None,
    )
    .unwrap();
    assert_eq!(Checkpoint::open_dir(dir).unwrap().len(), 1);
}

#[test]
fn a_folder_of_one_without_tensors_opens() {
    let folder = Folder::new();
    let path = folder.join("model.safetensors");
    save_safetensors::<&str>(&path, &[], None).unwrap();
    let read = Checkpoint::open(&path).unwrap();
    assert!(read.is_empty() && read.total_bytes() == 0);
    read.release_all_pages();
}
