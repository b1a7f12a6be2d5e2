//! The modules depend on each other in one direction only, `unsafe` and exported symbols stay
//! where they belong, and no file grows beyond what can be read at a sitting.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate with the modules it may name. Only `capi` is missing on every right side.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("trace", &[]),
    ("wire", &[]),
    ("cm", &["error"]),
    ("memory", &["error", "trace"]),
    ("work", &["error", "memory"]),
    ("tcp", &[]),
    ("iwarp", &["error", "trace", "wire", "cm", "memory", "work", "tcp"]),
    ("verbs", &["error", "wire", "cm", "memory", "work", "tcp"]),
    ("engine", &["error", "trace", "cm", "memory", "work", "iwarp", "verbs"]),
    ("rpc", &["error", "trace", "wire", "memory", "work", "engine"]),
    ("capi", &["error", "wire", "cm", "memory", "work", "iwarp", "verbs", "engine", "rpc"]),
];

/// Single files that may name one module more: a receive pool hands out elements of work requests, and a test runs on the model
/// of devices.
const EXCEPTIONS: &[(&str, &str)] = &[("memory/receive_pool.rs", "work"), ("rpc/session_test.rs", "verbs")];

/// Modules without `unsafe`.
const SAFE: &[&str] = &["wire", "cm", "tcp"];

/// The only module with symbols for C.
const EXPORTING: &str = "capi";

/// The only folder that names the bindings of librdmacm and libibverbs.
const BINDINGS: (&str, &str) = ("rdma_sys", "verbs/sys/");

/// Lines of code, without blank lines, comments and test modules.
const MAX_LINES: usize = 500;

/// One source file, its comments and literals blanked out.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        let top = self.path.split('/').next().unwrap();
        top.strip_suffix(".rs").unwrap_or(top)
    }

    fn is_test(&self) -> bool {
        let stem = self.path.rsplit('/').next().unwrap().strip_suffix(".rs").unwrap();
        self.path.contains("/tests/") || ["test", "tests"].contains(&stem) || stem.ends_with("_test")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
        code: blank(&fs::read_to_string(&path).unwrap()),
    };
    paths.into_iter().map(read).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Blanks out comments, strings and characters; lines stay where they are.
fn blank(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest, code.chars().next_back());
        let end = length.unwrap_or_else(|| first.len_utf8());
        let (taken, after) = rest.split_at(end);
        match length {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { c } else { ' ' })),
            None => code.push_str(taken),
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal that `rest` begins with.
fn skipped(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    if rest.starts_with('\'') {
        let mut inner = rest.chars().skip(1);
        let is_char = inner.next() == Some('\\') || inner.next() == Some('\'');
        return is_char.then(|| quoted(rest, '\''));
    }
    if in_word {
        return None;
    }
    if let Some(after) = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let body = after[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = body.find(&close).map_or(body.len(), |at| at + close.len());
        return Some(rest.len() - body.len() + end);
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        match tail {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// The words of `code` with where they begin.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The modules of the crate that `code` names through `crate::`.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let after = code[at + "crate::".len()..].trim_start();
        match after.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(words(after).next().map(str::to_owned)),
        }
    }
    names
}

/// The first word of each element of `a::b, c::{d, e}, f}`.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0usize;
    let mut elements = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => elements.push(String::new()),
            _ => elements.last_mut().unwrap().push(c),
        }
    }
    elements.iter().filter_map(|element| words(element).next().map(str::to_owned)).collect()
}

/// The number of lines that are code and not of a `#[cfg(test)] mod x { }`.
fn lines_of_code(code: &str) -> usize {
    let mut count = 0;
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let module = lines.by_ref().find(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
            if module.contains("mod ") && module.ends_with('{') {
                let indent = module.len() - module.trim_start().len();
                let _ = lines.by_ref().find(|line| line.trim() == "}" && line.find('}') == Some(indent));
            }
        } else if !line.trim().is_empty() {
            count += 1;
        }
    }
    count
}

/// Fails with all complaints at once.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_point_one_way() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        let own = source.module();
        let Some((_, allowed)) = MAY_NAME.iter().find(|(module, _)| *module == own) else {
            complaints.push(format!("src/{}: module {own} is not in the table of this test", source.path));
            continue;
        };
        for name in named(&source.code) {
            let excepted = EXCEPTIONS.contains(&(source.path.as_str(), name.as_str()));
            if name != own && !allowed.contains(&name.as_str()) && !excepted {
                complaints.push(format!("src/{}: {own} must not know {name}", source.path));
            }
        }
    }
    report(&complaints);
}

#[test]
fn unsafe_and_exports_stay_where_they_belong() {
    let mut complaints = Vec::new();
    for source in sources() {
        let has = |word: &str| words(&source.code).any(|found| found == word);
        if SAFE.contains(&source.module()) && has("unsafe") {
            complaints.push(format!("src/{}: unsafe", source.path));
        }
        if has(BINDINGS.0) && !source.path.starts_with(BINDINGS.1) {
            complaints.push(format!("src/{}: {} outside src/{}", source.path, BINDINGS.0, BINDINGS.1));
        }
        if source.module() != EXPORTING && (has("no_mangle") || has("export_name")) {
            complaints.push(format!("src/{}: an exported symbol", source.path));
        }
    }
    report(&complaints);
}

#[test]
fn files_stay_readable() {
    let count = |source: &Source| (lines_of_code(&source.code), source.path.clone());
    let sources = sources();
    let long =
        sources.iter().filter(|source| !source.is_test()).map(count).filter(|(lines, _)| *lines > MAX_LINES);
    let complaints: Vec<String> = long
        .map(|(lines, path)| format!("src/{path}: {lines} lines of code, more than {MAX_LINES}"))
        .collect();
    report(&complaints);
}

#[test]
fn the_reader_of_sources_reads_rust() {
    let source = r##"use crate::{error::{Error, Result}, wire, // crate::not_this
        cm as life}; /* crate::nor /* nested */ this */
        const A: &str = "crate::string \" unsafe"; const B: char = '"'; const C: &str = r#"crate::raw""#;
        fn f<'a>(x: &'a crate::memory::Region) { $crate::work::run(x, b'\'', '{') } mycrate::other!();"##;
    let code = blank(source);
    assert_eq!(named(&code), ["error", "wire", "cm", "memory", "work"]);
    assert!(!code.contains("unsafe"));
    assert_eq!(code.lines().count(), source.lines().count());
    assert_eq!(lines_of_code("a\n\n#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\nb\n"), 2);
}
