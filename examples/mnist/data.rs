//! MNIST from its IDX files, and what both examples do with a set of images.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bertha::tensor::Tensor;

/// Values of an image: 28 rows of 28.
pub const PIXELS: usize = 28 * 28;

/// The four files, as they are called after `gunzip`.
const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Images and what they show.
pub struct Images {
    /// Grey values, 28×28 for each image.
    pixels: Vec<u8>,
    /// A digit for each image.
    labels: Vec<u8>,
}

impl Images {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The images that `indices` name, as `[len(indices), 1, 28, 28]` of mean 0 and deviation 1, and their labels.
    pub fn batch(&self, indices: &[usize]) -> Result<(Tensor, Vec<i64>), Box<dyn Error>> {
        let mut pixels = Vec::with_capacity(indices.len() * PIXELS);
        for &index in indices {
            let image = &self.pixels[index * PIXELS..][..PIXELS];
            // The mean and the deviation of the training images.
            pixels.extend(
                image
                    .iter()
                    .map(|&x| (f32::from(x) / 255.0 - 0.1307) / 0.3081),
            );
        }
        let labels = indices.iter().map(|&index| i64::from(self.labels[index]));
        Ok((
            Tensor::from_vec(pixels, &[indices.len(), 1, 28, 28])?,
            labels.collect(),
        ))
    }

    /// The share of the images for which the greatest of the ten logits that `forward` gives is their digit.
    pub fn accuracy(
        &self,
        mut forward: impl FnMut(Tensor) -> Result<Tensor, Box<dyn Error>>,
    ) -> Result<f64, Box<dyn Error>> {
        let mut right = 0;
        let all: Vec<usize> = (0..self.len()).collect();
        for indices in all.chunks(500) {
            let logits = forward(self.batch(indices)?.0)?;
            for (row, &index) in logits.as_slice::<f32>()?.chunks_exact(10).zip(indices) {
                let best = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                right += usize::from(best == Some(self.labels[index].into()));
            }
        }
        Ok(right as f64 / self.len() as f64)
    }
}

/// The training and the test images of the folder that the first argument names.
pub fn from_arguments() -> Result<(Images, Images), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| Missing("no folder given".into()))?;
    let missing: Vec<&str> = FILES
        .into_iter()
        .filter(|file| !folder.join(file).is_file())
        .collect();
    if !missing.is_empty() {
        let (folder, missing) = (folder.display(), missing.join(", "));
        return Err(Missing(format!("{folder} lacks {missing}")).into());
    }
    let [train_images, train_labels, test_images, test_labels] =
        FILES.map(|file| folder.join(file));
    Ok((
        read(&train_images, &train_labels)?,
        read(&test_images, &test_labels)?,
    ))
}

/// What is missing; it prints how to get it.
struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, files) = (&self.0, FILES.join("\n  "));
        write!(
            f,
            "{what}\n\nGive the folder of the four MNIST files as the argument:\n  {files}\n\
             They are distributed as .gz files (see https://yann.lecun.com/exdb/mnist/ and its \
             mirrors): unpack them with `gunzip *.gz`."
        )
    }
}

/// What `main` prints: lines, not a quoted string.
impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Missing {}

fn read(images: &Path, labels: &Path) -> Result<Images, Box<dyn Error>> {
    let set = Images {
        pixels: read_idx(images, &[28, 28])?,
        labels: read_idx(labels, &[])?,
    };
    if set.pixels.len() != set.labels.len() * PIXELS {
        let (images, labels) = (images.display(), labels.display());
        return Err(format!("{images} and {labels} hold different numbers of images").into());
    }
    if let Some(label) = set.labels.iter().find(|&&label| label > 9) {
        return Err(format!("{}: label {label} is no digit", labels.display()).into());
    }
    Ok(set)
}

/// The bytes of an IDX file of unsigned bytes, whose dimensions after the first are `inner`: after two zeros, the type
/// 8 and the number of dimensions come the dimensions, big-endian, and then the values.
fn read_idx(path: &Path, inner: &[u32]) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = path.display();
    let bytes = fs::read(path).map_err(|error| format!("{file}: {error}"))?;
    let rank = 1 + inner.len();
    if bytes.get(..4) != Some(&[0, 0, 8, rank as u8]) {
        return Err(format!("{file} is no IDX file of bytes in {rank} dimensions").into());
    }
    let (header, values) = bytes
        .split_at_checked(4 + 4 * rank)
        .ok_or_else(|| format!("{file} ends in its header"))?;
    let (sizes, _) = header[4..].as_chunks::<4>();
    let sizes: Vec<u32> = sizes.iter().map(|&size| u32::from_be_bytes(size)).collect();
    let expected = sizes.iter().map(|&size| u64::from(size)).product::<u64>();
    if sizes[1..] != *inner || values.len() as u64 != expected {
        let found = values.len();
        return Err(format!("{file}: the header says {sizes:?}, found {found} values").into());
    }
    Ok(values.to_vec())
}
