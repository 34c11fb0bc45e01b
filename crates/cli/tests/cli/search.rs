use serde_json::Value;

use crate::run::{Desk, bertha, bertha_reads, golden};

const CORPUS: &str = "the old river went to a new city\n\nJohn Smith lives in London\n   \nwhat is a good question\nthe model is new\n";

fn model(name: &str) -> String {
    let folder = golden("sentence").join(name);
    folder.to_str().unwrap().to_owned()
}

fn lines_of(hits: &Value) -> Vec<u64> {
    let hits = hits["hits"].as_array().unwrap();
    hits.iter()
        .map(|hit| hit["line"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_nearest_lines_come_first() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", CORPUS);
    let model = model("mean");
    let search =
        |more: &[&str]| bertha(&[&["search", "-m", &model, "--corpus", &corpus], more].concat());
    let found = search(&[
        "-k",
        "3",
        "what is a good question",
        "John Smith lives in London",
    ])
    .lines();
    assert_eq!(found.len(), 2);
    for (found, (index, line)) in found.iter().zip([(0, 5), (1, 3)]) {
        assert_eq!(found["index"], index);
        let hits = found["hits"].as_array().unwrap();
        assert_eq!(hits.len(), 3);
        // The line itself is the nearest, and blank lines are none.
        assert_eq!(
            (&hits[0]["line"], &hits[0]["text"]),
            (&line.into(), &found["query"])
        );
        let scores: Vec<f64> = hits
            .iter()
            .map(|hit| hit["score"].as_f64().unwrap())
            .collect();
        assert!(
            (scores[0] - 1.0).abs() < 1e-6 && scores.is_sorted_by(|a, b| a >= b),
            "{scores:?}"
        );
    }
    let all = search(&["-k", "99", "river"]).lines();
    let mut lines = lines_of(&all[0]);
    lines.sort_unstable();
    assert_eq!(lines, [1, 3, 5, 6]);

    let text = search(&["-k", "1", "--format", "text", "the model is new"]);
    assert_eq!(
        String::from_utf8(text.out).unwrap(),
        "1.0000\t6\tthe model is new\n"
    );

    let queries = desk.write(
        "queries.txt",
        "what is a good question\nJohn Smith lives in London\n",
    );
    assert_eq!(search(&["-k", "3", "-i", &queries]).lines(), found);
    assert_eq!(
        desk.files(),
        ["corpus.txt", "queries.txt"],
        "no cache unless asked for"
    );
}

#[test]
fn a_corpus_may_be_json_lines_or_standard_input() {
    let desk = Desk::new();
    let json = "{\"text\": \"the river\"}\n{\"text\": \"John Smith\"}\n";
    let corpus = desk.write("corpus.jsonl", json);
    let model = model("mean");
    let by_file = bertha(&["search", "-m", &model, "--corpus", &corpus, "John Smith"]).lines();
    assert_eq!(lines_of(&by_file[0]), [2, 1]);
    let by_pipe = bertha_reads(
        &["search", "-m", &model, "--corpus", "-", "John Smith"],
        json.as_bytes(),
    );
    assert_eq!(by_pipe.lines(), by_file);
}

#[test]
fn a_cache_is_used_while_it_is_true_and_only_then() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", CORPUS);
    let folder = desk.model("sentence/mean");
    let cache = desk.path("corpus.txt.bertha-cache");
    let search = |more: &[&str]| {
        bertha(&[&["search", "-m", &folder, "-c", &corpus, "river"], more].concat())
    };
    let inode = || {
        let bytes = std::fs::read(&cache).unwrap();
        let changed = std::fs::metadata(&cache).unwrap().modified().unwrap();
        (bytes, changed)
    };
    let plain = search(&[]).lines();
    assert_eq!(search(&["--cache"]).lines(), plain);
    let first = inode();
    assert_eq!(search(&["--cache"]).lines(), plain);
    assert_eq!(inode(), first, "a cache that is true is not written again");
    // How it is run does not matter; blank lines are not embedded.
    std::fs::write(&corpus, format!("\n{CORPUS}")).unwrap();
    let moved = search(&["--cache", "--threads", "1"]).lines();
    assert_eq!(inode(), first);
    assert_eq!(moved, search(&[]).lines());

    // The corpus, an option, the model: each makes it another.
    std::fs::write(&corpus, CORPUS.replace("old", "new")).unwrap();
    assert_eq!(search(&["--cache"]).lines(), search(&[]).lines());
    let second = inode();
    assert_ne!(second.0, first.0);
    for more in [
        &["--max-length", "5"][..],
        &["--pooling", "cls"],
        &["--no-normalize"],
        &["--corpus-prompt", "river "],
    ] {
        let before = inode();
        let cached = search(&[&["--cache"], more].concat()).lines_beside_warnings();
        assert_eq!(cached, search(more).lines_beside_warnings(), "{more:?}");
        assert_ne!(inode().0, before.0, "{more:?}");
    }
    let pooling = format!("{folder}/1_Pooling/config.json");
    let config = std::fs::read_to_string(&pooling).unwrap();
    search(&["--cache"]).lines();
    let before = inode();
    let other = std::fs::read_to_string(golden("sentence/cls/1_Pooling/config.json")).unwrap();
    assert_ne!(other, config);
    std::fs::write(&pooling, other).unwrap();
    assert_eq!(search(&["--cache"]).lines(), search(&[]).lines());
    assert_ne!(inode().0, before.0);
}

#[test]
fn a_damaged_cache_is_made_anew_with_a_warning() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", CORPUS);
    let cache = desk.path("corpus.txt.bertha-cache");
    let model = model("mean");
    let search = || bertha(&["search", "-m", &model, "-c", &corpus, "--cache", "river"]);
    let plain = search().lines();
    let whole = std::fs::read(&cache).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&b""[..], b"junk", &whole[..whole.len() - 3], &flipped] {
        std::fs::write(&cache, damaged).unwrap();
        let ran = search();
        assert!(
            ran.err.starts_with("warning: the cache is damaged"),
            "{}",
            ran.err
        );
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert_eq!(ran.lines_beside_warnings(), plain);
        assert_eq!(std::fs::read(&cache).unwrap(), whole);
        assert_eq!(search().lines(), plain);
    }
}

#[test]
fn what_is_no_cache_is_never_overwritten() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", CORPUS);
    let model = model("mean");
    for precious in [
        corpus.clone(),
        desk.write("notes", "mine"),
        format!("{model}/model.safetensors"),
    ] {
        let before = std::fs::read(&precious).unwrap();
        let flag = format!("--cache={precious}");
        let ran = bertha(&["search", "-m", &model, "-c", &corpus, &flag, "river"]);
        ran.refused(1, &[&precious, "no cache of bertha"]);
        assert_eq!(std::fs::read(&precious).unwrap(), before);
    }
    // One that cannot be written costs nothing but time.
    let flag = format!("--cache={}", desk.path("no/such/folder/x.bertha-cache"));
    let ran = bertha(&["search", "-m", &model, "-c", &corpus, &flag, "river"]);
    assert!(
        ran.err
            .starts_with("warning: the embeddings are not cached"),
        "{}",
        ran.err
    );
    assert_eq!(ran.lines_beside_warnings().len(), 1);
}

#[test]
fn queries_and_corpus_may_have_prompts_of_their_own() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", CORPUS);
    let model = model("prompt");
    let search = |more: &[&str]| {
        bertha(&[&["search", "-m", &model, "-c", &corpus, "river"], more].concat()).lines()
    };
    let named = search(&["--prompt-name", "query", "--corpus-prompt-name", "passage"]);
    let given = search(&["--prompt", "what is it: ", "--corpus-prompt", "passage: "]);
    assert_eq!(named, given);
    assert_ne!(named, search(&[]));
}
