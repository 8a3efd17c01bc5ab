//! The canonical text of a value: one line for each leaf, `path = value`,
//! sorted. A step's key is a digest of this text and `why` compares two of
//! them, so an explanation cannot disagree with a hash.

/// A canonical text in the making.
#[derive(Debug, Default)]
pub struct Encoder {
    path: String,
    lines: Vec<String>,
}

impl Encoder {
    /// An empty text.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Writes what `write` writes under `name`.
    pub fn field(&mut self, name: &str, write: impl FnOnce(&mut Encoder)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match !name.is_empty() && name.chars().all(plain) {
            true => self.path.push_str(name),
            false => self.path.push_str(&quoted(name)),
        }
        write(self);
        self.path.truncate(length);
    }

    /// Writes a group of fields; one that turns out empty leaves a mark, so
    /// that it differs from an absent one.
    pub fn group(&mut self, empty: &str, write: impl FnOnce(&mut Encoder)) {
        let before = self.lines.len();
        write(self);
        if self.lines.len() == before && !self.path.is_empty() {
            self.line(empty);
        }
    }

    /// Writes a string.
    pub fn text(&mut self, text: &str) {
        self.line(&quoted(text));
    }

    /// Writes a whole number.
    pub fn int(&mut self, value: impl Into<i128>) {
        self.line(&value.into().to_string());
    }

    /// Writes a number: the shortest digits that give the same bits, with a
    /// point or an exponent, zero without a sign.
    pub fn float(&mut self, value: f64) {
        self.line(&format!("{:?}", if value == 0.0 { 0.0 } else { value }));
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.line(if value { "true" } else { "false" });
    }

    /// Writes a bare word that no value of another type can look like.
    pub fn line(&mut self, word: &str) {
        self.lines.push(format!("{} = {word}", self.path));
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.lines.sort();
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_sorted_escaped_and_tells_empty_from_absent() {
        let mut out = Encoder::new();
        out.field("b", |out| out.float(1e-5));
        out.field("a", |out| out.field("x.y", |out| out.text("line\n\"q\"")));
        out.field("c", |out| out.group("{}", |_| ()));
        out.field("zero", |out| out.float(-0.0));
        let expected = "a.\"x.y\" = \"line\\n\\\"q\\\"\"\nb = 1e-5\nc = {}\nzero = 0.0\n";
        assert_eq!(out.finish(), expected);
    }
}
