//! Everything that ever was of interest, through the bodies again: no panic, and none takes long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmain_fuzz::TARGETS;

/// For one input, on a busy machine and without optimisation.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Of one target, so that the corpus stays small enough to be read in every test run.
const FILES_MAX: usize = 160;

#[test]
fn every_input_of_the_corpus_keeps_every_promise_in_time() {
    let mut failures = Vec::new();
    for (target, body) in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        assert!(inputs.len() <= FILES_MAX, "{target} has {} inputs: `scripts/fuzz` says how to cut them", inputs.len());
        for input in inputs {
            let bytes = fs::read(&input).expect("a file of the corpus can be read");
            let start = Instant::now();
            let result = std::panic::catch_unwind(|| body(&bytes));
            let took = start.elapsed();
            if result.is_err() || took > TIME_MAX {
                failures.push(format!("{} ({took:?})", input.display()));
            }
        }
    }
    assert!(failures.is_empty(), "of the corpus:\n{}", failures.join("\n"));
}

#[test]
fn every_target_has_its_body_and_its_file() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a crate has a manifest");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target} is not in Cargo.toml");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let Ok(directory) = fs::read_dir(root().join("corpus").join(target)) else { return Vec::new() };
    let mut inputs: Vec<PathBuf> = directory.map(|entry| entry.expect("a directory can be read").path()).collect();
    inputs.sort();
    inputs
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
