//! What the names of parameters tell, in every family.

/// What stands before the number of a layer, or of a group of layers.
const LAYERS: [&str; 4] = ["layer", "layers", "albert_layer_groups", "h"];

/// The number of the layer that a parameter belongs to.
pub fn layer_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    parts.find(|part| LAYERS.contains(part))?;
    parts.next()?.parse().ok()
}

/// Whether a parameter is the weight that a checkpoint calls so, with or without the prefix of its family.
pub(crate) fn ends_as(parameter: &str, weight: &str) -> bool {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    ends(parameter, weight) || ends(weight, parameter)
}

/// Whether a parameter is the pooler's.
pub(crate) fn is_in_pooler(name: &str) -> bool {
    name.split('.').any(|part| part == "pooler")
}

/// Whether a tensor is a table of embeddings, of words, positions or types. Vectors of distances (DeBERTa) are what products are
/// made of, and no table.
pub(crate) fn is_table(name: &str) -> bool {
    name.ends_with("embeddings.weight") && !name.ends_with("rel_embeddings.weight")
}

/// Whether a tensor is the table of words.
pub(crate) fn is_word_table(name: &str) -> bool {
    name.ends_with("word_embeddings.weight") || name.ends_with("tok_embeddings.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_family() {
        for (name, layer) in [
            ("bert.encoder.layer.11.output.dense.bias", Some(11)),
            ("distilbert.transformer.layer.2.ffn.lin1.weight", Some(2)),
            (
                "albert.encoder.albert_layer_groups.1.albert_layers.0.ffn.weight",
                Some(1),
            ),
            ("layers.3.mlp.Wi.weight", Some(3)),
            ("h.0.attn.weight", Some(0)),
            ("bert.pooler.dense.weight", None),
            ("layer_norm.weight", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
        assert!(
            is_in_pooler("bert.pooler.dense.weight") && !is_in_pooler("layers.3.mlp.Wi.weight")
        );
        assert!(is_table("embeddings.position_embeddings.weight"));
        assert!(!is_word_table("embeddings.position_embeddings.weight"));
        assert!(is_word_table("model.embeddings.tok_embeddings.weight"));
        assert!(!is_table("deberta.encoder.rel_embeddings.weight"));
    }
}
