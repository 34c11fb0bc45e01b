//! `config.json`, read key by key with `transformers`' defaults.

use std::path::{Path, PathBuf};

use bertha_nn::{Activation, Binarization, InputEstimator, InputRounding, activation_from_name};
use serde_json::{Map, Value};

use crate::{Head, ModelError, ProblemType};

/// A model folder's configuration. A key that is absent or null takes the default that the
/// architecture's configuration class in `transformers` gives it. A dot in a key leads into an object:
/// `rope_parameters.rope_theta`.
#[derive(Clone, Debug)]
pub struct Config {
    file: PathBuf,
    keys: Map<String, Value>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a JSON object.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, ModelError> {
        let file = file.as_ref();
        let text = std::fs::read(file).map_err(|source| ModelError::Read {
            file: file.to_path_buf(),
            hint: match source.kind() {
                std::io::ErrorKind::NotFound => {
                    "; a model folder holds config.json, model.safetensors and a tokenizer"
                }
                _ => "",
            },
            source,
        })?;
        Self::from_json(&text, file)
    }

    /// Parses the bytes of a configuration; `file` is what errors call it.
    ///
    /// # Errors
    /// When the bytes are not a JSON object.
    pub fn from_json(json: &[u8], file: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let file = file.into();
        match serde_json::from_slice(json) {
            Ok(Value::Object(keys)) => Ok(Self { file, keys }),
            Ok(_) => Err(ModelError::NotAConfig {
                file,
                reason: "the JSON is not an object".into(),
            }),
            Err(error) => Err(ModelError::NotAConfig {
                file,
                reason: error.to_string(),
            }),
        }
    }

    /// The file that was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The architecture's name, `model_type`.
    ///
    /// # Errors
    /// When there is none.
    pub fn model_type(&self) -> Result<&str, ModelError> {
        self.text("model_type", None)
    }

    /// The longest sequence, in tokens, that a model of this configuration takes.
    ///
    /// # Errors
    /// When the architecture is unknown or a key is out of range.
    pub fn max_tokens(&self) -> Result<usize, ModelError> {
        Ok((crate::architecture(self)?.encoder)(self)?.max_tokens())
    }

    /// Whether a key is there, and not null.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A whole number within `range`; `default` where absent, required when there is no default.
    ///
    /// # Errors
    /// When the key is of another type or out of range.
    pub fn size(
        &self,
        key: &str,
        default: Option<usize>,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| self.error(key, expected()));
        };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        match size {
            Some(size) if range.contains(&size) => Ok(size),
            _ => Err(self.error(key, expected())),
        }
    }

    /// A whole number for each of `len` things: a list of as many, or one for all; `default` where absent.
    ///
    /// # Errors
    /// When the key is of another type, a number is out of range, or the list has another length.
    pub fn sizes(
        &self,
        key: &str,
        default: usize,
        len: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Vec<usize>, ModelError> {
        let Some(list) = self.get(key).and_then(Value::as_array) else {
            return Ok(vec![self.size(key, Some(default), range)?; len]);
        };
        let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let sizes: Option<Vec<_>> = list.iter().map(size).collect();
        let fits = |sizes: &Vec<usize>| {
            sizes.len() == len && sizes.iter().all(|size| range.contains(size))
        };
        sizes.filter(fits).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let expected = format!("a whole number from {low} to {high}, or {len} of them");
            self.error(key, expected)
        })
    }

    /// A positive, finite number; `default` where absent.
    ///
    /// # Errors
    /// When the key is of another type, not positive or not finite.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(self.error(key, "a positive number".into())),
        }
    }

    /// A number from 0 to below 1; `default` where absent.
    ///
    /// # Errors
    /// When the key is of another type or out of range.
    pub fn probability(&self, key: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        match value.as_f64().map(|number| number as f32) {
            Some(number) if (0.0..1.0).contains(&number) => Ok(number),
            _ => Err(self.error(key, "a number from 0 to below 1".into())),
        }
    }

    /// Sets a key, as a model that is trained anew needs: another head, other labels.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.insert(key.to_owned(), value.into());
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// The configuration as the text of a `config.json`.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.keys.clone()))
    }

    /// A truth value; `default` where absent.
    ///
    /// # Errors
    /// When the key is of another type.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.error(key, "true or false".into())),
        }
    }

    /// A string; `default` where absent, required when there is no default.
    ///
    /// # Errors
    /// When the key is of another type, or absent and required.
    pub fn text<'a>(&'a self, key: &str, default: Option<&'a str>) -> Result<&'a str, ModelError> {
        let expected = || self.error(key, "a string".into());
        match self.get(key) {
            None => default.ok_or_else(expected),
            Some(value) => value.as_str().ok_or_else(expected),
        }
    }

    /// The activation that a string names; `default` where absent.
    ///
    /// # Errors
    /// When the key is no string, or names none that bertha has.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation, ModelError> {
        activation_from_name(self.text(key, Some(default))?)
            .map_err(|error| self.error(key, error.to_string()))
    }

    /// A list of strings, where there is one.
    ///
    /// # Errors
    /// When the key is of another type.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        list.map(Some)
            .ok_or_else(|| self.error(key, "a list of strings".into()))
    }

    /// Words: a list of strings, or one string with `separator` between them; none where absent.
    ///
    /// # Errors
    /// When the key is of another type.
    pub fn words(&self, key: &str, separator: char) -> Result<Vec<&str>, ModelError> {
        let words = match self.get(key).and_then(Value::as_str) {
            Some(text) => text.split(separator).map(str::trim).collect(),
            None => self.texts(key)?.unwrap_or_default(),
        };
        Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
    }

    /// A whole number that is not given where it is below 1, or absent.
    ///
    /// # Errors
    /// When the key is of another type.
    pub fn given_size(&self, key: &str, largest: usize) -> Result<Option<usize>, ModelError> {
        match self.get(key).and_then(Value::as_i64) {
            Some(..1) => Ok(None),
            Some(_) => self.size(key, None, 1..=largest).map(Some),
            None if !self.contains(key) => Ok(None),
            None => Err(self.error(key, "a whole number".into())),
        }
    }

    /// The head that the checkpoint was saved with, by [`Config::architecture_class`].
    pub fn head(&self) -> Head {
        Head::from_architecture(self.architecture_class().unwrap_or_default())
    }

    /// The class in `transformers` that the checkpoint was saved from, the first of `architectures`.
    pub fn architecture_class(&self) -> Option<&str> {
        let list = self.get("architectures")?;
        list.get(0)?.as_str()
    }

    /// The names of the classes, from `id2label` in the order of its keys, else `LABEL_0`, … for
    /// `num_labels` (default 2).
    ///
    /// # Errors
    /// When `id2label` is no map from 0, 1, 2, … to strings, or `num_labels` is out of range.
    pub fn labels(&self) -> Result<Vec<String>, ModelError> {
        let Some(value) = self.get("id2label") else {
            let count = self.size("num_labels", Some(2), 1..=1 << 24)?;
            return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
        };
        let expected = || self.error("id2label", "a map from \"0\", \"1\", … to names".into());
        let map = value.as_object().filter(|map| !map.is_empty());
        let map = map.ok_or_else(expected)?;
        (0..map.len())
            .map(|i| {
                let label = map.get(&i.to_string()).and_then(Value::as_str);
                label.map(str::to_owned).ok_or_else(expected)
            })
            .collect()
    }

    /// How the model is binarized: `quantization_config.binarization`.
    ///
    /// # Errors
    /// When that is not known.
    pub fn binarization(&self) -> Result<Option<Binarization>, ModelError> {
        let found = self.keys.get("quantization_config");
        let bits = found.and_then(|found| found.get("activation_bits"));
        let bits = bits.map_or(Some(1), |bits| bits.as_u64()?.try_into().ok());
        let of = |name: &str| Binarization::from_name(name, bits?);
        match found.and_then(|found| found.get("binarization")) {
            None | Some(Value::Null) => Ok(None),
            Some(name) => match name.as_str().and_then(of) {
                Some(binarization) => Ok(Some(binarization)),
                None => {
                    let expected = "a `binarization` of \"naive\", \"bibert\" or \"bit\", with `activation_bits` of 1, \
                                    of \"bit\" to 8"
                        .into();
                    Err(self.error("quantization_config", expected))
                }
            },
        }
    }

    /// How inputs of layers are rounded: `quantization_config.input_bits` and `input_estimator`.
    ///
    /// # Errors
    /// When these are out of range.
    pub fn input_rounding(&self) -> Result<Option<InputRounding>, ModelError> {
        let found = self.keys.get("quantization_config");
        let key = |name: &str| found.and_then(|found| found.get(name));
        let Some(bits) = key("input_bits").filter(|bits| !bits.is_null()) else {
            return Ok(None);
        };
        let bits = bits.as_u64().filter(|bits| (2..=8).contains(bits));
        let name = key("input_estimator").and_then(Value::as_str);
        let estimator = InputEstimator::from_name(name.unwrap_or("lsq"));
        match (bits, estimator) {
            (Some(bits), Some(estimator)) => Ok(Some(InputRounding {
                bits: bits as u32,
                estimator,
            })),
            _ => {
                let expected =
                    "`input_bits` of 2 to 8 and an `input_estimator` of \"lsq\" or \"pact\"";
                Err(self.error("quantization_config", expected.into()))
            }
        }
    }

    /// The magnitude from which on layers of 8 bits do not round inputs: `quantization_config.outlier_threshold`.
    ///
    /// # Errors
    /// When that is not a number above 0.
    pub fn outlier_threshold(&self) -> Result<Option<f32>, ModelError> {
        let found = self.keys.get("quantization_config");
        let found = found.and_then(|found| found.get("outlier_threshold"));
        let Some(found) = found.filter(|found| !found.is_null()) else {
            return Ok(None);
        };
        match found.as_f64().filter(|threshold| *threshold > 0.0) {
            Some(threshold) => Ok(Some(threshold as f32)),
            None => {
                let expected = "an `outlier_threshold` above 0".into();
                Err(self.error("quantization_config", expected))
            }
        }
    }

    /// Whether layers have two weights each, side by side: `quantization_config.split_weights`.
    ///
    /// # Errors
    /// When that is neither true nor false.
    pub fn split_weights(&self) -> Result<bool, ModelError> {
        let found = self.keys.get("quantization_config");
        match found.and_then(|found| found.get("split_weights")) {
            None | Some(Value::Null) => Ok(false),
            Some(found) => found.as_bool().ok_or_else(|| {
                let expected = "`split_weights` of true or false".into();
                self.error("quantization_config", expected)
            }),
        }
    }

    /// What kind of target a sequence classifier was trained on, where the configuration says.
    ///
    /// # Errors
    /// When `problem_type` is none of the known ones.
    pub fn problem_type(&self) -> Result<Option<ProblemType>, ModelError> {
        match self.get("problem_type").map(|value| value.as_str()) {
            None => Ok(None),
            Some(Some("regression")) => Ok(Some(ProblemType::Regression)),
            Some(Some("single_label_classification")) => Ok(Some(ProblemType::SingleLabel)),
            Some(Some("multi_label_classification")) => Ok(Some(ProblemType::MultiLabel)),
            Some(_) => Err(self.error(
                "problem_type",
                "regression, single_label_classification or multi_label_classification".into(),
            )),
        }
    }

    /// The error that says what key `key` holds and what it should.
    pub fn error(&self, key: &str, expected: String) -> ModelError {
        let mut found = match self.get(key) {
            None => "missing".to_owned(),
            Some(value) => value.to_string(),
        };
        if found.chars().count() > 200 {
            found = found.chars().take(200).chain(['…']).collect();
        }
        ModelError::Key {
            file: self.file.clone(),
            key: key.to_owned(),
            found,
            expected,
        }
    }

    /// The value of a key; a dot leads into an object.
    fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.keys.get(parts.next()?)?;
        let value = parts.try_fold(first, |value, part| value.get(part))?;
        (!value.is_null()).then_some(value)
    }
}
