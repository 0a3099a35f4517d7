//! A batch of values for one statement, as JSON text: `{"keys": [["1", ...]], ...}`. Nothing has to be
//! quoted, because all values are numbers, hexadecimal and chunker settings.

use super::Mark;
use crate::digest::{Algo, Digest};
use crate::key::{BlobId, BlockKey};
use crate::place::Place;

/// An object of arrays, under construction.
pub(super) struct Batch(Row);

/// The text so far; what is written goes to the array that is open.
pub(super) struct Row(String);

impl Batch {
    pub(super) fn new() -> Batch {
        Batch(Row("{".to_owned()))
    }

    /// The rows of these marks to be locked, and the marks.
    pub(super) fn of_marks(marks: &[Mark]) -> String {
        Batch::new()
            .numbers("rows", marks.iter().map(|mark| mark.row.0))
            .rows("marks", marks, Row::mark)
            .finish()
    }

    /// Adds `"name": [[...], ...]`.
    pub(super) fn rows<T>(
        mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Row, T),
    ) -> Batch {
        self.begin(name);
        for item in items {
            self.0.0.push('[');
            write(&mut self.0, item);
            close(&mut self.0.0, ']');
            self.0.0.push(',');
        }
        close(&mut self.0.0, ']');
        self.0.0.push(',');
        self
    }

    /// Adds `"name": [1, 2, ...]`.
    pub(super) fn numbers(mut self, name: &str, numbers: impl IntoIterator<Item = i64>) -> Batch {
        self.begin(name);
        for number in numbers {
            self.0.number(number);
        }
        close(&mut self.0.0, ']');
        self.0.0.push(',');
        self
    }

    fn begin(&mut self, name: &str) {
        self.0.0.push('"');
        self.0.0.push_str(name);
        self.0.0.push_str("\":[");
    }

    pub(super) fn finish(mut self) -> String {
        close(&mut self.0.0, '}');
        self.0.0
    }
}

/// Takes off a last comma and closes.
fn close(text: &mut String, bracket: char) {
    if text.ends_with(',') {
        text.pop();
    }
    text.push(bracket);
}

impl Row {
    pub(super) fn number(&mut self, number: i64) {
        self.0.push_str(&number.to_string());
        self.0.push(',');
    }

    /// A number, or null.
    pub(super) fn optional(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.number(number),
            None => self.0.push_str("null,"),
        }
    }

    /// The four numbers of a place; nulls for none.
    pub(super) fn place(&mut self, place: Option<&Place>) {
        self.optional(place.map(|place| place.pack.0));
        self.optional(place.map(|place| place.offset as i64));
        self.optional(place.map(|place| i64::from(place.stored_size)));
        self.optional(place.map(|place| i64::from(place.codec.number())));
    }

    /// The two numbers that tell whether a row still has a place; nulls for none.
    pub(super) fn found(&mut self, place: Option<&Place>) {
        self.optional(place.map(|place| place.pack.0));
        self.optional(place.map(|place| place.offset as i64));
    }

    /// A mark of a block.
    pub(super) fn mark(&mut self, mark: &Mark) {
        self.number(mark.row.0);
        self.place(mark.place.as_ref());
        self.found(mark.found.as_ref());
    }

    /// Plain text; a chunker's setting has nothing that would have to be quoted.
    pub(super) fn text(&mut self, text: &str) {
        debug_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'));
        self.0.push('"');
        self.0.push_str(text);
        self.0.push_str("\",");
    }

    pub(super) fn key(&mut self, key: &BlockKey) {
        self.parts(key.algo(), key.digest(), key.size() as i64);
    }

    pub(super) fn id(&mut self, id: &BlobId) {
        self.parts(id.algo(), id.digest(), id.size() as i64);
    }

    fn parts(&mut self, algo: Algo, digest: &Digest, size: i64) {
        self.number(algo.number());
        self.text(&digest.to_string());
        self.number(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_json() {
        let key = BlockKey::of(Algo::Blake3, b"x").unwrap();
        let text = Batch::new()
            .rows("keys", [&key], Row::key)
            .rows("none", [(); 0], |_, ()| {})
            .numbers("rows", [1, -2])
            .finish();
        assert_eq!(text, format!("{{\"keys\":[[1,\"{}\",1]],\"none\":[],\"rows\":[1,-2]}}", key.digest()));
        assert_eq!(Batch::new().finish(), "{}");
    }
}
