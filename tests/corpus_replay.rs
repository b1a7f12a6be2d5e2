//! The fuzz targets over their checked-in corpus, with a stable compiler and without libFuzzer: every file as it is, every
//! truncation of it, and every single wrong bit.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/bodies/ddp.rs"]
mod ddp;
#[path = "../fuzz/bodies/handshake.rs"]
mod handshake;
#[path = "../fuzz/bodies/mpa.rs"]
mod mpa;
#[path = "../fuzz/bodies/rdmap.rs"]
mod rdmap;
#[path = "../fuzz/bodies/rpcrdma.rs"]
mod rpcrdma;
#[path = "../fuzz/bodies/stream.rs"]
mod stream;

type Body = fn(&[u8]);

/// Every target with what it does.
const TARGETS: &[(&str, Body)] = &[
    ("mpa", mpa::run),
    ("ddp", ddp::run),
    ("rdmap", rdmap::run),
    ("rpcrdma", rpcrdma::run),
    ("handshake", handshake::run),
    ("stream", stream::run),
];

/// Files longer than this are not flipped bit by bit, which takes the square of their length.
const FLIP_LIMIT: usize = 1024;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A frame in the corpus, and all that is nearly one.
fn replay(body: Body, data: &[u8]) {
    body(data);
    for len in 0..data.len() {
        body(&data[..len]);
    }
    if data.len() <= FLIP_LIMIT {
        let mut wrong = data.to_vec();
        for bit in 0..data.len() * 8 {
            wrong[bit / 8] ^= 1 << (bit % 8);
            body(&wrong);
            wrong[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn corpus() {
    for (target, body) in TARGETS {
        let files = names(&fuzz_dir().join("corpus").join(target));
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            println!("{}", file.display());
            replay(*body, &fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_target_is_replayed() {
    let stems = |dir: &str| -> Vec<String> {
        names(&fuzz_dir().join(dir))
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
            .collect()
    };
    let mut targets: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    targets.sort();
    assert_eq!(stems("fuzz_targets"), targets);
    assert_eq!(stems("corpus"), targets);
}
