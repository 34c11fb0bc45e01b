//! The labels of a task and their numbers.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use crate::TrainError;

/// Labels in a fixed order: the number of a label is its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    labels: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl LabelMap {
    /// Labels in the order given.
    ///
    /// # Errors
    /// [`TrainError::Labels`] when there is none, or one occurs twice.
    pub fn new(labels: Vec<String>) -> Result<Self, TrainError> {
        let mut numbers = HashMap::with_capacity(labels.len());
        for (number, label) in (0..).zip(&labels) {
            if numbers.insert(label.clone(), number).is_some() {
                return Err(TrainError::Labels(format!("`{label}` occurs twice")));
            }
        }
        match labels.is_empty() {
            true => Err(TrainError::Labels("there is none".into())),
            false => Ok(Self { labels, numbers }),
        }
    }

    /// The labels that occur in data, sorted: as numbers if all are whole numbers, otherwise by their
    /// bytes. The order does not depend on the data's.
    ///
    /// # Errors
    /// As [`LabelMap::new`].
    pub fn discover<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Self, TrainError> {
        let labels: BTreeSet<&str> = labels.into_iter().collect();
        let mut labels: Vec<&str> = labels.into_iter().collect();
        let numbers: Option<Vec<i64>> = labels.iter().map(|label| label.parse().ok()).collect();
        if numbers.is_some() {
            labels.sort_by_key(|label| label.parse::<i64>().unwrap_or(0));
        }
        Self::new(labels.into_iter().map(str::to_owned).collect())
    }

    /// Reads `id2label` of a config.json: keys "0" to n-1.
    ///
    /// # Errors
    /// [`TrainError::Labels`] when a number is missing or a label is no text.
    pub fn from_id2label(id2label: &Map<String, Value>) -> Result<Self, TrainError> {
        let label = |number: usize| match id2label.get(&number.to_string()) {
            Some(Value::String(label)) => Ok(label.clone()),
            Some(other) => Err(TrainError::Labels(format!(
                "id2label has {other} for \"{number}\", expected a text"
            ))),
            None => Err(TrainError::Labels(format!(
                "id2label has {} entries but none for \"{number}\"",
                id2label.len()
            ))),
        };
        Self::new((0..id2label.len()).map(label).collect::<Result<_, _>>()?)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no label; never so.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels, by number.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The number of a label.
    pub fn number(&self, label: &str) -> Option<u32> {
        self.numbers.get(label).copied()
    }

    /// The number of an example's label.
    ///
    /// # Errors
    /// [`TrainError::UnknownLabel`] naming the example.
    pub fn number_of(&self, example: usize, label: &str) -> Result<u32, TrainError> {
        self.number(label).ok_or_else(|| TrainError::UnknownLabel {
            example,
            label: label.to_owned(),
            labels: self.labels.clone(),
        })
    }

    /// `id2label` of a config.json.
    pub fn id2label(&self) -> Value {
        let entries = self.labels.iter().enumerate();
        Value::Object(
            entries
                .map(|(i, label)| (i.to_string(), json!(label)))
                .collect(),
        )
    }

    /// `label2id` of a config.json.
    pub fn label2id(&self) -> Value {
        let entries = self.labels.iter().enumerate();
        Value::Object(
            entries
                .map(|(i, label)| (label.clone(), json!(i)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_labels() {
        let found = |labels: &[&str]| LabelMap::discover(labels.iter().copied()).unwrap();
        assert_eq!(found(&["pos", "neg", "pos"]).labels(), ["neg", "pos"]);
        assert_eq!(found(&["10", "9", "-1", "9"]).labels(), ["-1", "9", "10"]);
        assert_eq!(found(&["10", "9", "x"]).labels(), ["10", "9", "x"]);
    }

    #[test]
    fn a_map_comes_back_from_its_config() {
        let labels: Vec<String> = (0..12).map(|i| format!("label {i}")).collect();
        let map = LabelMap::new(labels).unwrap();
        let Value::Object(id2label) = map.id2label() else {
            panic!("id2label is an object");
        };
        assert_eq!(LabelMap::from_id2label(&id2label).unwrap(), map);
        assert_eq!(map.label2id()["label 11"], 11);
    }

    #[test]
    fn labels_that_cannot_be_are_named() {
        let error = LabelMap::new(vec!["a".into(), "a".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`a`"), "{error}");
        assert!(LabelMap::discover([]).is_err());
        let map = LabelMap::discover(["a", "b"]).unwrap();
        let error = map.number_of(4, "c").unwrap_err().to_string();
        assert!(
            error.contains("example 4") && error.contains("`c`") && error.contains("a, b"),
            "{error}"
        );
        let gap = json!({"0": "a", "2": "b"});
        assert!(LabelMap::from_id2label(gap.as_object().unwrap()).is_err());
    }
}
