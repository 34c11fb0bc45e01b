//! The engines. All that take part in a row give the same ids on an English book, checked before anything is timed.

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use kitoken::Kitoken;
use kitoken::convert::ConversionError;

/// Tokenizes a text and tells how many tokens came out.
pub type Engine = Box<dyn Fn(&str) -> usize>;

/// What is timed.
pub struct Peer {
    pub name: &'static str,
    /// Makes an engine that has seen no text.
    pub make: Box<dyn Fn() -> Engine>,
}

fn peer(name: &'static str, make: impl Fn() -> Engine + 'static) -> Peer {
    let make = Box::new(make);
    Peer { name, make }
}

pub fn bertha(json: &str) -> Tokenizer {
    Tokenizer::from_json(json).expect("bertha loads the file")
}

pub fn hugging_face(json: &str) -> tokenizers::Tokenizer {
    let mut theirs: tokenizers::Tokenizer = json.parse().expect("tokenizers loads the file");
    theirs
        .with_padding(None)
        .with_truncation(None)
        .expect("no truncation is a valid one");
    theirs
}

fn kitoken(json: &str) -> Result<Kitoken, ConversionError> {
    Kitoken::from_tokenizers_slice(json.as_bytes())
}

/// Says why an engine is left out, if it gives other ids than bertha.
fn agrees(
    name: &str,
    model: &str,
    lines: &str,
    ids: impl Fn(&str) -> Option<Vec<u32>>,
    ours: &Tokenizer,
) -> bool {
    let options = EncodeOptions::default().special_tokens(false);
    let different = |line: &&str| {
        let expected = ours.encode_ids(*line, &options).expect("any text encodes");
        ids(line).as_ref() != Some(&expected)
    };
    let count = lines.lines().filter(different).count();
    if count > 0 {
        eprintln!(
            "{model}: {name} gives other ids on {count} of {} lines",
            lines.lines().count()
        );
    }
    // Rare differences are no other work.
    count * 100 <= lines.lines().count()
}

/// The engines for a tokenizer.json that can read it and agree on `lines`.
pub fn load(model: &str, json: &str, lines: &str) -> Vec<Peer> {
    let (ours, theirs) = (bertha(json), hugging_face(json));
    let mut peers = Vec::new();
    let file = json.to_owned();
    peers.push(peer("bertha, ids", move || {
        let ours = bertha(&file);
        let options = EncodeOptions::default();
        Box::new(move |text| {
            ours.encode_ids(text, &options)
                .expect("any text encodes")
                .len()
        })
    }));
    let ids = |text: &str| Some(theirs.encode_fast(text, false).ok()?.get_ids().to_vec());
    assert!(
        agrees("tokenizers", model, lines, ids, &ours),
        "tokenizers gives other ids"
    );
    let file = json.to_owned();
    peers.push(peer("tokenizers, ids", move || {
        let theirs = hugging_face(&file);
        Box::new(move |text| {
            theirs
                .encode_fast(text, true)
                .expect("any text encodes")
                .len()
        })
    }));
    match kitoken(json) {
        Ok(engine) => {
            let ids = |text: &str| engine.encode(text, false).ok();
            if agrees("kitoken", model, lines, ids, &ours) {
                let file = json.to_owned();
                peers.push(peer("kitoken, ids", move || {
                    let engine = kitoken(&file).expect("it was loaded before");
                    Box::new(move |text| engine.encode(text, true).map_or(0, |ids| ids.len()))
                }));
            }
        }
        Err(error) => eprintln!("{model}: kitoken does not load it: {error}"),
    }
    if model == "gpt2" {
        let engine = tiktoken_rs::r50k_base().expect("it is built in");
        if agrees(
            "tiktoken-rs",
            model,
            lines,
            |text| Some(engine.encode_ordinary(text)),
            &ours,
        ) {
            peers.push(peer("tiktoken-rs, ids", || {
                let engine = tiktoken_rs::r50k_base().expect("it is built in");
                Box::new(move |text| engine.encode_ordinary(text).len())
            }));
        }
    }
    let file = json.to_owned();
    peers.push(peer("bertha, offsets", move || {
        let ours = bertha(&file);
        let options = EncodeOptions::default();
        Box::new(move |text| ours.encode(text, &options).expect("any text encodes").len())
    }));
    let file = json.to_owned();
    peers.push(peer("tokenizers, offsets", move || {
        let theirs = hugging_face(&file);
        Box::new(move |text| {
            theirs
                .encode_char_offsets(text, true)
                .expect("any text encodes")
                .len()
        })
    }));
    peers
}
