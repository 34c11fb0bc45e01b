//! The figures that criterion kept, as a table.

use std::path::PathBuf;

use serde_json::Value;

/// Rows in the order of their measurement.
#[derive(Default)]
pub struct Table(Vec<(String, &'static str, usize)>);

impl Table {
    /// A row for what was measured under these names on so many bytes.
    pub fn add(&mut self, group: &str, name: &'static str, bytes: usize) {
        self.0.push((group.to_owned(), name, bytes));
    }

    /// Prints MiB/s and, beside bertha's of the same group and kind, the ratio.
    pub fn print(&self) {
        println!("\n| tokenizer and text | engine | MiB/s | bertha ÷ engine |");
        println!("| --- | --- | ---: | ---: |");
        for (group, name, bytes) in &self.0 {
            let Some(rate) = rate(group, name, *bytes) else {
                continue;
            };
            let kind = name.split_once(", ").map_or("", |(_, kind)| kind);
            let ours = rate_of_bertha(group, kind, *bytes);
            let ratio = ours.map_or(String::new(), |ours| format!("{:.1}", ours / rate));
            let ratio = if name.starts_with("bertha") {
                String::new()
            } else {
                ratio
            };
            println!("| {group} | {name} | {rate:.1} | {ratio} |");
        }
    }
}

fn rate_of_bertha(group: &str, kind: &str, bytes: usize) -> Option<f64> {
    rate(group, &format!("bertha, {kind}"), bytes)
}

/// MiB a second by the median that criterion wrote; `None` if it was not asked for.
fn rate(group: &str, name: &str, bytes: usize) -> Option<f64> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")),
        PathBuf::from,
    );
    let file = folder
        .join("criterion")
        .join(group)
        .join(name)
        .join("new/estimates.json");
    let estimates: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let nanoseconds = estimates["median"]["point_estimate"].as_f64()?;
    Some(bytes as f64 / f64::from(1 << 20) / (nanoseconds / 1e9))
}
