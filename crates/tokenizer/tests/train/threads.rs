//! The same files for any number of threads and any order of the texts.

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, TrainedTokenizer};

use crate::corpus::{LATIN, counts, lines};

fn on(threads: usize, work: impl FnOnce() -> TrainedTokenizer + Send) -> TrainedTokenizer {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

#[test]
fn threads_and_order_do_not_show() {
    for kind in TokenizerKind::ALL {
        let trainer = TokenizerTrainer::new(kind)
            .vocab_size(2500)
            .min_frequency(2);
        let forward = || {
            let mut counter = trainer.counter();
            counter.add_iter(lines());
            trainer.train(&counter.finish()).unwrap()
        };
        let backward = || {
            let mut counter = trainer.counter();
            for line in lines().iter().rev() {
                counter.add_texts(&[line]);
            }
            trainer.train(&counter.finish()).unwrap()
        };
        let one = on(1, forward);
        assert!(one == on(3, forward), "{kind:?}: three threads");
        assert!(one == on(8, backward), "{kind:?}: eight threads, backwards");
    }
}

#[test]
fn a_whole_text_is_its_words() {
    let trainer = TokenizerTrainer::new(TokenizerKind::WordPiece);
    let lines: Vec<&str> = LATIN.iter().flat_map(|text| text.lines()).collect();
    assert_eq!(counts(&trainer, &LATIN), counts(&trainer, &lines));
}
