//! Generates the public header into OUT_DIR. `tests/header.rs` compares it with the committed one and, for
//! `make header`, replaces that; nothing is ever written into the source tree from here.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The types of the header that are not defined in src/capi, and where they are.
const SHARED_TYPES: [(&str, &str); 4] = [
    ("src/engine", "pub struct ErrorReport"),
    ("src/engine", "pub struct Stats"),
    ("src/rpc", "pub struct PieceView"),
    ("src/rpc", "pub struct MessageView"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    println!("cargo::rerun-if-changed=src/capi");
    println!("cargo::rerun-if-changed=src/engine");
    println!("cargo::rerun-if-changed=src/rpc");
    // Without a header the library is still good: the test of the header says what is wrong.
    if let Err(error) = generate() {
        println!("cargo::warning=no rdmacm_gluster.h: {error}");
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let header = out.join("rdmacm_gluster.h");
    // A header left from before an error would pass for a current one.
    fs::write(&header, "")?;

    // Not the whole crate: constants and types of the other modules have no place in the header.
    let shared = out.join("shared.rs");
    let types = SHARED_TYPES.iter().map(|(dir, name)| shared_type(&root.join(dir), name));
    fs::write(&shared, types.collect::<Result<Vec<_>, _>>()?.join("\n"))?;
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    config.after_includes = Some(version()?);
    let builder = cbindgen::Builder::new().with_config(config);
    let bindings = builder.with_src(&shared).with_src(root.join("src/capi/mod.rs")).generate()?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    Ok(fs::write(&header, String::from_utf8(text)?.trim_end().to_owned() + "\n")?)
}

/// The text of a shared type's definition, from its comment to its closing brace.
fn shared_type(dir: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(path)?;
        let lines: Vec<&str> = source.lines().collect();
        let Some(start) = lines.iter().position(|line| line.starts_with(name)) else { continue };
        let comment = lines.iter().take(start).rposition(|line| !line.starts_with(['/', '#']));
        let body = lines.iter().skip(start).position(|line| line.starts_with('}'));
        let first = comment.map_or(0, |blank| blank + 1);
        let last = start + body.ok_or("no end of the shared type")?;
        return Ok(lines[first..=last].join("\n"));
    }
    Ok(String::new())
}

fn version() -> Result<String, env::VarError> {
    let mut text =
        String::from("\n/* The version this header belongs to; rcg_version() tells the library's. */");
    for part in ["MAJOR", "MINOR", "PATCH"] {
        let number = env::var(format!("CARGO_PKG_VERSION_{part}"))?;
        text.push_str(&format!("\n#define RCG_VERSION_{part} {number}"));
    }
    Ok(text)
}
