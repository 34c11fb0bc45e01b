//! Loading tokenizers: the folders people have, and the files that somebody broke.

mod broken;
mod folders;
mod mutated;
mod valid;
