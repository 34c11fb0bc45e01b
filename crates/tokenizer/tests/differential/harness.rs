//! One tokenizer, loaded by bertha and by `tokenizers`, and the comparison of all they say about a text.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

use bertha_tokenizer::{
    Direction, EncodeOptions, Encoding, Input, OffsetKind, Tokenizer, Truncation,
    TruncationStrategy,
};
use serde_json::Value;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy as TheirStrategy,
};

/// The same tokenizer.json in both crates.
pub struct Both {
    pub name: String,
    pub ours: Tokenizer,
    // Truncation is a setting of their tokenizer, so a comparison changes it.
    theirs: Mutex<tokenizers::Tokenizer>,
    // Whether there is no post-processor.
    bare: bool,
    // Whether a panic of theirs is nothing to worry about, as where an added token is nothing but white space.
    may_panic: bool,
    // Whether theirs is known to forget type ids in windows after the first: see docs/tokenizer.md.
    forgets_types: bool,
}

/// All that is said of one token.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    id: u32,
    text: String,
    type_id: u32,
    offsets: (usize, usize),
    special: bool,
    word: Option<u32>,
    sequence: Option<usize>,
}

const PANIC: &str = "a panic";

/// An encoding: its tokens, and what truncation cut off as further windows.
type Windows = Vec<Vec<Token>>;

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Both {
    pub fn new(name: impl Into<String>, json: &Value) -> Self {
        Self::from_json(name, &json.to_string())
    }

    pub fn from_json(name: impl Into<String>, json: &str) -> Self {
        let name = name.into();
        let ours = Tokenizer::from_json(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut theirs: tokenizers::Tokenizer = json
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // What the file carries is never applied unasked by bertha.
        theirs
            .with_padding(None)
            .with_truncation(None)
            .expect("no truncation is a valid one");
        let bare = theirs.get_post_processor().is_none();
        let mut added = theirs.get_added_tokens_decoder().into_values();
        let may_panic = added.any(|token| token.content.trim().is_empty());
        Self {
            name,
            ours,
            theirs: Mutex::new(theirs),
            bare,
            may_panic,
            forgets_types: false,
        }
    }

    /// For templates whose type ids are not 0 and 1.
    pub fn ignore_later_types(mut self) -> Self {
        self.forgets_types = true;
        self
    }

    /// For components in combinations that their authors did not think of.
    pub fn allow_panics(mut self) -> Self {
        self.may_panic = true;
        self
    }

    /// Asserts that both say the same with offsets in characters and in bytes.
    pub fn check<'a>(&self, input: impl Into<Input<'a>>, options: &EncodeOptions) {
        let input = input.into();
        for kind in [OffsetKind::Chars, OffsetKind::Bytes] {
            let options = options.clone().offsets(kind);
            self.check_offsets(input, &options);
        }
    }

    /// Asserts that both give the same ids and offsets in characters, and nothing else, for the sake of time; returns
    /// the number of tokens.
    pub fn check_ids_and_offsets(&self, text: &str) -> usize {
        let options = EncodeOptions::default();
        let ours = self.ours.encode(text, &options);
        let ours = ours.unwrap_or_else(|error| panic!("{}: {error}: {text:?}", self.name));
        let theirs = self.theirs(text.into(), &options);
        let theirs = theirs.unwrap_or_else(|error| panic!("{}: {error}: {text:?}", self.name));
        assert_eq!(ours.ids(), theirs.get_ids(), "{}: {text:?}", self.name);
        let offsets = ours.offsets().iter().map(|o| (o.0 as usize, o.1 as usize));
        assert!(
            offsets.eq(theirs.get_offsets().iter().copied()),
            "{}: offsets of {text:?}",
            self.name
        );
        let ids = self.ours.encode_ids(text, &options);
        assert_eq!(ids.expect("what encodes has ids"), ours.ids(), "{text:?}");
        ours.len()
    }

    fn check_offsets(&self, input: Input<'_>, options: &EncodeOptions) {
        let ours = self.ours.encode(input, options);
        let theirs = self.theirs(input, options);
        let context = || format!("tokenizer {}, {options:?}, input {input:?}", self.name);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let mut theirs = self.their_windows(&theirs);
                if !options.overflow {
                    theirs.truncate(1);
                }
                if self.bare {
                    name_sequences(&mut theirs);
                }
                let windows = self.our_windows(&ours);
                if self.forgets_types {
                    let further = windows.iter().flatten().zip(theirs.iter_mut().flatten());
                    for (our, their) in further.skip(ours.len()) {
                        their.type_id = our.type_id;
                    }
                }
                compare(&windows, &theirs, &context);
                let ids = self.ours.encode_ids(input, options);
                assert_eq!(
                    ids.expect("what encodes has ids"),
                    ours.ids(),
                    "{}",
                    context()
                );
            }
            (Err(_), Err(_)) => {}
            // Where such a token with `lstrip` comes after one whose `rstrip` has swallowed it, theirs panics.
            (Ok(_), Err(theirs)) if self.may_panic && theirs == PANIC => {}
            (Ok(ours), Err(theirs)) => {
                panic!(
                    "{}\nbertha gives {} tokens, tokenizers fails: {theirs}",
                    context(),
                    ours.len()
                )
            }
            (Err(ours), Ok(theirs)) => {
                panic!(
                    "{}\nbertha fails: {ours}, tokenizers gives {} tokens",
                    context(),
                    theirs.len()
                )
            }
        }
    }

    /// Asserts that both decode `ids` to the same text, with and without special tokens.
    pub fn check_decode(&self, ids: &[u32]) {
        for skip in [false, true] {
            let decode = |theirs: &mut tokenizers::Tokenizer| theirs.decode(ids, skip);
            let caught = quietly(|| catch_unwind(AssertUnwindSafe(|| self.with_theirs(decode))));
            let ours = self.ours.decode(ids, skip);
            let theirs = match caught {
                Ok(theirs) => theirs,
                Err(_) if self.may_panic => continue,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            assert_eq!(
                ours.unwrap_or_else(|error| panic!("{}: {ids:?}: {error}", self.name)),
                theirs.expect("tokenizers decodes any known id"),
                "tokenizer {}, ids {ids:?}, skip special tokens: {skip}",
                self.name
            );
        }
    }

    /// Asserts that both know the same vocabulary.
    pub fn check_vocabulary(&self) {
        let (vocabulary, added) = self.with_theirs(|theirs| {
            let post = theirs.get_post_processor();
            let added = [false, true].map(|pair| {
                post.map_or(0, |post| {
                    tokenizers::PostProcessor::added_tokens(post, pair)
                })
            });
            (theirs.get_vocab(true), added)
        });
        assert_eq!(self.ours.vocab_size(), vocabulary.len(), "{}", self.name);
        for (token, &id) in &vocabulary {
            assert_eq!(
                self.ours.token_to_id(token),
                Some(id),
                "{}: {token:?}",
                self.name
            );
            assert_eq!(
                self.ours.id_to_token(id),
                Some(token.as_str()),
                "{}: {id}",
                self.name
            );
        }
        let unknown = vocabulary.values().max().expect("a vocabulary has tokens") + 1;
        assert_eq!(self.ours.id_to_token(unknown), None, "{}", self.name);
        assert_eq!(
            self.ours.token_to_id("no such token"),
            None,
            "{}",
            self.name
        );
        for (pair, added) in [(false, added[0]), (true, added[1])] {
            assert_eq!(
                self.ours.num_special_tokens(pair),
                added,
                "{}, pair {pair}",
                self.name
            );
        }
    }

    fn with_theirs<R>(&self, use_it: impl FnOnce(&mut tokenizers::Tokenizer) -> R) -> R {
        // A comparison that failed elsewhere leaves a tokenizer that is still sound.
        use_it(&mut self.theirs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn theirs(
        &self,
        input: Input<'_>,
        options: &EncodeOptions,
    ) -> Result<tokenizers::Encoding, String> {
        let encode = |theirs: &mut tokenizers::Tokenizer| {
            theirs.set_encode_special_tokens(!options.match_special_tokens);
            let default = options.truncation.map(|_| TruncationParams::default());
            theirs.with_truncation(default)?;
            if let (Some(ours), Some(theirs)) = (options.truncation, theirs.get_truncation_mut()) {
                // Set this way, a limit that could not be kept is refused when it has to be, as bertha does, and not
                // before.
                *theirs = their_truncation(ours);
            }
            let input: tokenizers::EncodeInput<'_> = match input {
                Input::Single(text) => text.into(),
                Input::Pair(first, second) => (first, second).into(),
            };
            match options.offsets {
                OffsetKind::Chars => theirs.encode_char_offsets(input, options.add_special_tokens),
                OffsetKind::Bytes => theirs.encode(input, options.add_special_tokens),
            }
        };
        // A limit without room, or a stride as long as a window, is a panic of theirs.
        let caught = quietly(|| catch_unwind(AssertUnwindSafe(|| self.with_theirs(encode))));
        caught
            .map_err(|_| "a panic".to_owned())?
            .map_err(|error| error.to_string())
    }

    fn our_windows(&self, encoding: &Encoding) -> Windows {
        let window = |encoding: &Encoding| {
            let count = encoding.len();
            assert_eq!(encoding.is_empty(), count == 0);
            let texts: Vec<&str> = self.ours.tokens(encoding).collect();
            let lengths = [
                encoding.ids().len(),
                encoding.type_ids().len(),
                encoding.offsets().len(),
                encoding.special_tokens_mask().len(),
                encoding.word_ids().len(),
                encoding.sequence_ids().len(),
                texts.len(),
            ];
            assert_eq!(lengths, [count; 7], "{}: lengths differ", self.name);
            (0..count)
                .map(|i| Token {
                    id: encoding.ids()[i],
                    text: texts[i].to_owned(),
                    type_id: encoding.type_ids()[i],
                    offsets: (
                        encoding.offsets()[i].0 as usize,
                        encoding.offsets()[i].1 as usize,
                    ),
                    special: encoding.special_tokens_mask()[i],
                    word: encoding.word_ids()[i],
                    sequence: encoding.sequence_ids()[i].map(|s| s as usize),
                })
                .collect()
        };
        let mut windows = vec![window(encoding)];
        windows.extend(encoding.overflowing().iter().map(window));
        windows
    }

    fn their_windows(&self, encoding: &tokenizers::Encoding) -> Windows {
        let window = |encoding: &tokenizers::Encoding| {
            let sequences = encoding.get_sequence_ids();
            (0..encoding.len())
                .map(|i| {
                    let id = encoding.get_ids()[i];
                    Token {
                        id,
                        // Where an added token matched, `get_tokens` has the text that it swallowed, with the
                        // spaces around; the name of the id is what Python's `convert_ids_to_tokens` gives.
                        text: self
                            .with_theirs(|theirs| theirs.id_to_token(id))
                            .unwrap_or_else(|| encoding.get_tokens()[i].clone()),
                        type_id: encoding.get_type_ids()[i],
                        offsets: encoding.get_offsets()[i],
                        special: encoding.get_special_tokens_mask()[i] == 1,
                        word: encoding.get_word_ids()[i],
                        sequence: sequences[i],
                    }
                })
                .collect()
        };
        let mut windows = vec![window(encoding)];
        windows.extend(encoding.get_overflowing().iter().map(window));
        windows
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `act` without a word on stderr should it panic.
fn quietly<R>(act: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = act();
    QUIET.set(false);
    result
}

fn compare(ours: &Windows, theirs: &Windows, context: &dyn Fn() -> String) {
    if ours == theirs {
        return;
    }
    for (window, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for (index, (our, their)) in ours.iter().zip(theirs).enumerate() {
            assert_eq!(
                our,
                their,
                "token {index} of window {window} (left bertha, right tokenizers)\n{}",
                context()
            );
        }
        assert_eq!(
            ours.len(),
            theirs.len(),
            "tokens of window {window} (left bertha, right tokenizers)\n{}",
            context()
        );
    }
    assert_eq!(
        ours.len(),
        theirs.len(),
        "windows (left bertha, right tokenizers)\n{}",
        context()
    );
}

/// Without a post-processor, theirs says of every token in a pair's further windows that it belongs to the first text.
/// Their type ids are right, and are the number of the text then.
fn name_sequences(windows: &mut Windows) {
    for token in windows.iter_mut().skip(1).flatten() {
        token.sequence = Some(token.type_id as usize);
    }
}

fn their_truncation(ours: Truncation) -> TruncationParams {
    TruncationParams {
        max_length: ours.max_length,
        stride: ours.stride,
        strategy: match ours.strategy {
            TruncationStrategy::LongestFirst => TheirStrategy::LongestFirst,
            TruncationStrategy::OnlyFirst => TheirStrategy::OnlyFirst,
            TruncationStrategy::OnlySecond => TheirStrategy::OnlySecond,
        },
        direction: match ours.direction {
            Direction::Left => TruncationDirection::Left,
            Direction::Right => TruncationDirection::Right,
        },
    }
}
