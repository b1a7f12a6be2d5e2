//! The committed header is the one that src/capi makes, and holds nothing that is not ours.

use std::path::Path;
use std::{env, fs};

/// What build.rs made of the sources this test was built from.
const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/rdmacm_gluster.h"));

#[test]
fn the_committed_header_is_current() {
    assert!(!GENERATED.is_empty(), "build.rs made no header: see its warning");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/rdmacm_gluster.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, GENERATED).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let same = committed.lines().zip(GENERATED.lines()).take_while(|(old, new)| old == new).count();
    assert!(
        committed == GENERATED,
        "include/rdmacm_gluster.h is not what src/capi makes (first difference in line {}): run `make header`",
        same + 1,
    );
}

#[test]
fn no_macro_is_defined_twice() {
    let code = without_comments(GENERATED);
    let mut names: Vec<&str> = Vec::new();
    let mut alternative = false;
    for line in code.lines() {
        match line.strip_prefix("#define ") {
            // What stands after an `#else` is the same macro for another language.
            Some(rest) if !alternative => names.extend(rest.split([' ', '(']).next()),
            _ => alternative = (alternative || line.starts_with("#else")) && !line.starts_with("#endif"),
        }
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(
        names.len() == all,
        "a macro is defined twice, perhaps in src/capi and in build.rs or cbindgen.toml"
    );
}

#[test]
fn every_name_in_the_header_has_our_prefix() {
    let code = without_comments(GENERATED);
    // Members are indented; only what defines a name of its own is looked at.
    for line in code.lines().filter(|line| !line.starts_with(' ')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = match words.as_slice() {
            ["#define", name, ..] => *name,
            // A function's type has its name in front of its parameters.
            ["typedef", rest @ ..] if rest.iter().any(|word| word.starts_with("(*")) => {
                rest.iter().find(|word| word.starts_with("(*")).unwrap_or(&"")
            }
            ["typedef" | "struct" | "enum" | "union", .., name] => name,
            _ => continue,
        };
        let name = name.trim_start_matches("(*");
        let ours = name.starts_with("RCG_") || name.starts_with("rcg_") || name == "RDMACM_GLUSTER_H";
        assert!(ours || name == "{" || name.starts_with(['*', ')']), "a foreign name in the header: {line}");
    }
}

fn without_comments(source: &str) -> String {
    let mut rest = source;
    let mut code = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    code + rest
}
