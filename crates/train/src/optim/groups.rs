//! Which parameters are decayed, and which learn how fast.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How parameters are put into groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupOptions {
    /// Decay of the weights; biases, norms and everything of fewer than two dimensions have none.
    pub weight_decay: f64,
    /// Parameters whose names contain one of these are not decayed either.
    pub no_decay: Vec<String>,
    /// Each layer learns this much more slowly than the one above it (1: all equally fast). Heads and
    /// the pooler learn at the full rate, the top layer at this part of it, the embeddings slowest
    /// (Sun et al. 2019, <https://arxiv.org/abs/1905.05583>).
    pub layer_decay: f64,
    /// Parameters whose names start with one of these are not trained at all.
    pub frozen: Vec<String>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            weight_decay: 0.01,
            no_decay: Vec::new(),
            layer_decay: 1.0,
            frozen: Vec::new(),
        }
    }
}

/// What the rules say about one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterRule {
    /// What the learning rate is multiplied with.
    pub lr_scale: f64,
    /// Weight decay; 0 for none.
    pub weight_decay: f64,
    /// Whether it is trained.
    pub trained: bool,
}

/// The rule of every parameter, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterGroups {
    rules: BTreeMap<String, ParameterRule>,
}

impl ParameterGroups {
    /// Groups parameters by their names (as in the weights' file) and shapes.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when an option is out of range, [`TrainError::Parameter`] when a name
    /// occurs twice.
    pub fn new<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a [usize])>,
        options: &GroupOptions,
    ) -> Result<Self, TrainError> {
        let in_range = |setting, value: f64, largest: f64, expected: &str| {
            if (0.0..=largest).contains(&value) && value.is_finite() {
                return Ok(());
            }
            Err(TrainError::Setting {
                setting,
                found: value.to_string(),
                expected: expected.to_owned(),
            })
        };
        let decay = options.weight_decay;
        in_range(
            "weight_decay",
            decay,
            f64::MAX,
            "a finite number of at least 0",
        )?;
        in_range(
            "layer_decay",
            options.layer_decay,
            1.0,
            "a number from 0 to 1",
        )?;
        let parameters: Vec<_> = parameters.into_iter().collect();
        let layers = parameters.iter().filter_map(|(name, _)| layer_of(name));
        let layers = layers.max().map_or(0, |last| last + 1);
        let mut rules = BTreeMap::new();
        for (name, shape) in parameters {
            let decayed = shape.len() >= 2
                && !is_norm(name)
                && !options
                    .no_decay
                    .iter()
                    .any(|part| name.contains(part.as_str()));
            // 0 for what is above the layers, `layers + 1` for the embeddings.
            let depth = match layer_of(name) {
                Some(layer) => layers - layer,
                None if is_embedding(name) => layers + 1,
                None => 0,
            };
            let rule = ParameterRule {
                lr_scale: options.layer_decay.powf(depth as f64),
                weight_decay: if decayed { options.weight_decay } else { 0.0 },
                trained: !options
                    .frozen
                    .iter()
                    .any(|start| name.starts_with(start.as_str())),
            };
            if rules.insert(name.to_owned(), rule).is_some() {
                return Err(TrainError::Parameter {
                    parameter: name.to_owned(),
                    found: "the name is given twice".into(),
                    expected: "every parameter once (a tied one under one of its names)".into(),
                });
            }
        }
        Ok(Self { rules })
    }

    /// The rule of a parameter.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] when it was not there when the groups were made.
    pub fn rule(&self, name: &str) -> Result<ParameterRule, TrainError> {
        self.rules
            .get(name)
            .copied()
            .ok_or_else(|| TrainError::Parameter {
                parameter: name.to_owned(),
                found: "it belongs to no group".into(),
                expected: format!(
                    "one of the {} parameters that were grouped",
                    self.rules.len()
                ),
            })
    }

    /// All parameters with their rules, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ParameterRule)> {
        self.rules.iter().map(|(name, rule)| (name.as_str(), *rule))
    }
}

/// The `N` of the first `layer.N.` or `layers.N.` in a name.
fn layer_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        if matches!(part, "layer" | "layers")
            && let Some(Ok(layer)) = parts.peek().map(|next| next.parse::<usize>())
            // Nothing has more layers; a larger number is no layer's.
            && layer < 100_000
        {
            return Some(layer);
        }
    }
    None
}

fn is_embedding(name: &str) -> bool {
    name.split('.')
        .any(|part| part == "embeddings" || part.ends_with("_embeddings"))
}

/// Whether a parameter is a normalization's, by the names that they have in Hugging Face's models.
fn is_norm(name: &str) -> bool {
    name.split('.').any(|part| {
        let part = part.to_ascii_lowercase();
        part.ends_with("norm") || part.contains("layernorm") || part.contains("layer_norm")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: &[(&str, &[usize])] = &[
        ("bert.embeddings.word_embeddings.weight", &[100, 8]),
        ("bert.embeddings.LayerNorm.weight", &[8]),
        ("bert.encoder.layer.0.attention.self.query.weight", &[8, 8]),
        ("bert.encoder.layer.0.attention.self.query.bias", &[8]),
        ("bert.encoder.layer.1.output.LayerNorm.bias", &[8]),
        ("bert.encoder.layer.1.output.dense.weight", &[8, 32]),
        ("bert.pooler.dense.weight", &[8, 8]),
        ("classifier.weight", &[2, 8]),
        ("classifier.bias", &[2]),
    ];

    fn groups(options: &GroupOptions) -> ParameterGroups {
        ParameterGroups::new(SHAPES.iter().copied(), options).unwrap()
    }

    #[test]
    fn only_matrices_decay() {
        let groups = groups(&GroupOptions::default());
        let decayed: Vec<&str> = groups
            .iter()
            .filter(|(_, rule)| rule.weight_decay > 0.0)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            decayed,
            [
                "bert.embeddings.word_embeddings.weight",
                "bert.encoder.layer.0.attention.self.query.weight",
                "bert.encoder.layer.1.output.dense.weight",
                "bert.pooler.dense.weight",
                "classifier.weight",
            ]
        );
        assert!(
            groups
                .iter()
                .all(|(_, rule)| rule.lr_scale == 1.0 && rule.trained)
        );
        // A norm that is stored as a matrix is one all the same.
        let shape: &[usize] = &[8, 1];
        let odd = ParameterGroups::new([("attn_norm.weight", shape)], &GroupOptions::default());
        assert_eq!(
            odd.unwrap().rule("attn_norm.weight").unwrap().weight_decay,
            0.0
        );
    }

    #[test]
    fn lower_layers_learn_more_slowly() {
        let groups = groups(&GroupOptions {
            layer_decay: 0.5,
            frozen: vec!["bert.embeddings".into()],
            no_decay: vec!["pooler".into()],
            ..GroupOptions::default()
        });
        for (name, scale) in [
            ("classifier.bias", 1.0),
            ("bert.pooler.dense.weight", 1.0),
            ("bert.encoder.layer.1.output.dense.weight", 0.5),
            ("bert.encoder.layer.0.attention.self.query.bias", 0.25),
            ("bert.embeddings.LayerNorm.weight", 0.125),
        ] {
            assert_eq!(groups.rule(name).unwrap().lr_scale, scale, "{name}");
        }
        assert!(
            !groups
                .rule("bert.embeddings.LayerNorm.weight")
                .unwrap()
                .trained
        );
        assert!(groups.rule("classifier.bias").unwrap().trained);
        assert_eq!(
            groups
                .rule("bert.pooler.dense.weight")
                .unwrap()
                .weight_decay,
            0.0
        );
    }

    #[test]
    fn layers_are_found_in_names() {
        for (name, layer) in [
            ("encoder.layer.11.output.dense.weight", Some(11)),
            ("layers.3.mlp.Wi.weight", Some(3)),
            ("encoder.layer_norm.weight", None),
            ("layer.weight", None),
            ("layer.99999999999999999999.weight", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        let error = groups(&GroupOptions::default()).rule("x.y").unwrap_err();
        assert!(error.to_string().contains("`x.y`"));
        let shape: &[usize] = &[1];
        let twice = [("a", shape), ("a", shape)];
        let error = ParameterGroups::new(twice, &GroupOptions::default()).unwrap_err();
        assert!(error.to_string().contains("`a`"), "{error}");
        let options = GroupOptions {
            layer_decay: 1.5,
            ..GroupOptions::default()
        };
        let error = ParameterGroups::new([("a", shape)], &options).unwrap_err();
        assert!(error.to_string().contains("layer_decay"), "{error}");
    }
}
