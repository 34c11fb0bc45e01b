//! Trained vocabularies beside those of Hugging Face's `tokenizers`, and the folders that hold them.

mod corpus;
mod folders;
mod merges;
mod splitting;
mod threads;
mod unigram;
