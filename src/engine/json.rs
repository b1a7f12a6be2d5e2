//! JSON (RFC 8259), written.

use std::fmt::Write;

/// A text that grows. Members have a key, elements of arrays have none.
#[derive(Default)]
pub(super) struct Json {
    text: String,
    /// Something stands before the next member.
    follows: bool,
}

impl Json {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn key(&mut self, key: Option<&str>) {
        if std::mem::replace(&mut self.follows, true) {
            self.text.push(',');
        }
        if let Some(key) = key {
            self.quoted(key);
            self.text.push(':');
        }
    }

    fn quoted(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                '\n' => self.text.push_str("\\n"),
                // Writing to a String can't fail, here and below.
                c if c < ' ' => drop(write!(self.text, "\\u{:04x}", u32::from(c))),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn nested(&mut self, key: Option<&str>, (open, close): (char, char), members: impl FnOnce(&mut Self)) {
        self.key(key);
        self.text.push(open);
        self.follows = false;
        members(self);
        self.text.push(close);
        self.follows = true;
    }

    pub(super) fn object(&mut self, key: Option<&str>, members: impl FnOnce(&mut Self)) {
        self.nested(key, ('{', '}'), members);
    }

    pub(super) fn array(&mut self, key: &str, elements: impl FnOnce(&mut Self)) {
        self.nested(Some(key), ('[', ']'), elements);
    }

    pub(super) fn text(&mut self, key: Option<&str>, text: &str) {
        self.key(key);
        self.quoted(text);
    }

    pub(super) fn number(&mut self, key: &str, number: u64) {
        self.key(Some(key));
        let _ = write!(self.text, "{number}");
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn nests_separates_and_escapes() {
        let mut json = Json::default();
        json.object(None, |json| {
            json.number("one", 1);
            json.array("two", |json| {
                json.object(None, |json| json.text(Some("a\"b"), "c\\d\n\u{1}\u{e9}"));
                json.object(None, |_| {});
                json.text(None, "x");
            });
            json.array("three", |_| {});
            json.number("four", u64::MAX);
        });
        let text =
            r#"{"one":1,"two":[{"a\"b":"c\\d\n\u0001é"},{},"x"],"three":[],"four":18446744073709551615}"#;
        assert_eq!(json.into_text(), text);
    }
}
