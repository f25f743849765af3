//! The fuzz targets on stable: the stored corpora, and a short run of changes to them.

use std::{fs, path::Path};

use ws_core::Role;
use ws_tests::{fuzz, random::Random};

/// How many changed inputs each target gets.
const RUNS: usize = 20_000;

/// Fewer, where an input is run through so many connections that each takes its time.
const FEW_RUNS: usize = RUNS / 8;

/// Runs a target over its corpus, and over inputs that are made of it.
fn run(name: &str, runs: usize, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut corpus: Vec<Vec<u8>> = fs::read_dir(folder.join(name))
        .expect("the corpus is stored")
        .map(|file| fs::read(file.expect("it is listed").path()).expect("it can be read"))
        .collect();
    assert!(!corpus.is_empty());
    // The order of a folder is not the same everywhere.
    corpus.sort();
    for input in &corpus {
        target(input);
    }
    let mut random = Random::new(6455);
    for _ in 0..runs {
        target(&change(&corpus, &mut random));
    }
}

/// Some inputs of the corpus one behind the other, cut, repeated and with changed bytes.
fn change(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut changed = Vec::new();
    for _ in 0..=random.below(4) {
        let input = &corpus[random.below(corpus.len())];
        // Large ones are slow byte by byte, and there is little to find in them.
        if input.len() < 2000 || random.chance(3) {
            changed.extend_from_slice(input);
        }
        if random.chance(10) {
            changed.truncate(random.below(changed.len() + 1));
        }
    }
    for _ in 0..random.below(4) {
        if !changed.is_empty() {
            let place = random.below(changed.len().min(200));
            changed[place] = random.number().to_le_bytes()[0];
        }
    }
    changed
}

#[test]
fn a_server_reads_anything() {
    run("decode_server", RUNS, |data| {
        fuzz::decode(Role::Server, data);
    });
}

#[test]
fn a_client_reads_anything() {
    run("decode_client", RUNS, |data| {
        fuzz::decode(Role::Client, data);
    });
}

#[test]
fn anything_is_in_a_compressed_message() {
    run("inflate", FEW_RUNS, fuzz::inflate);
}

#[test]
fn anything_is_a_header_or_none() {
    run("header", RUNS, fuzz::header);
}

#[test]
fn any_lines_are_an_offer_or_a_refusal() {
    run("offer", RUNS, fuzz::offer);
}

#[test]
fn any_lines_are_an_acceptance_or_a_refusal() {
    run("answer", RUNS, fuzz::answer);
}
