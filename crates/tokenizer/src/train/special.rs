//! Special tokens by what they are for.

use crate::special::SpecialToken;

/// Texts that name a role, in BERT's way and in RoBERTa's.
const NAMES: [(SpecialToken, &[&str]); 5] = [
    (SpecialToken::Cls, &["[CLS]", "<cls>", "<s>"]),
    (SpecialToken::Sep, &["[SEP]", "<sep>", "</s>"]),
    (SpecialToken::Pad, &["[PAD]", "<pad>"]),
    (SpecialToken::Unk, &["[UNK]", "<unk>"]),
    (SpecialToken::Mask, &["[MASK]", "<mask>"]),
];

/// The special token with a role: the one that comes first among those named for it.
pub(super) fn of_role(tokens: &[String], role: SpecialToken) -> Option<(usize, &str)> {
    let names = NAMES.iter().find(|of| of.0 == role)?.1;
    tokens
        .iter()
        .enumerate()
        .find(|(_, token)| names.contains(&token.as_str()))
        .map(|(id, token)| (id, token.as_str()))
}

/// The name that `transformers` gives to a role.
pub(super) fn key(role: SpecialToken) -> &'static str {
    match role {
        SpecialToken::Cls => "cls_token",
        SpecialToken::Sep => "sep_token",
        SpecialToken::Pad => "pad_token",
        SpecialToken::Unk => "unk_token",
        SpecialToken::Mask => "mask_token",
    }
}

/// The names of a role, for messages.
pub(super) fn names(role: SpecialToken) -> String {
    let of = NAMES.iter().find(|of| of.0 == role);
    of.map_or(String::new(), |of| of.1.join(" or "))
}
