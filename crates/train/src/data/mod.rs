//! Data.
mod conll;
mod labels;
mod lines;
mod squad;
mod table;
pub use conll::{ConllColumns, TaggedSentence, read_conll};
pub use labels::LabelMap;
pub use lines::{read_documents, read_lines};
pub use squad::{GoldAnswer, Question, read_squad};
pub use table::{Cell, Format, Row, Table};
