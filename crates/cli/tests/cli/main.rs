//! The real binary, run as its users run it, on the models of `tests/golden/`.

mod bad_input;
mod bench;
mod convert;
mod decode;
mod embed;
mod forward;
mod heads;
mod info;
mod input;
mod quantize;
mod quickstart;
mod run;
mod search;
mod tokenize;
mod train;
mod train_tokenizer;
