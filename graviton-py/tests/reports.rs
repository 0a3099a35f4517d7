//! The classes of `python/graviton/_reports.py` have the fields and the documentation that `graviton_core`
//! declares.
//!
//! `GRAVITON_UPDATE=1 cargo test -p graviton-py --test reports` writes the generated parts.

use std::fmt::Write;
use std::fs;

use graviton_core::report::{Field, Kind, Report};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/graviton/_reports.py");
const COLUMNS: usize = 110;

#[test]
fn the_classes_are_as_they_are_declared() {
    let found = fs::read_to_string(FILE).unwrap();
    let mut wanted = found.clone();
    macro_rules! renew_all {
        ($($report:ident),+) => { $(renew::<graviton_core::$report>(&mut wanted);)+ };
    }
    graviton_core::each_report!(renew_all);
    if wanted == found {
        return;
    }
    assert!(
        std::env::var_os("GRAVITON_UPDATE").is_some(),
        "_reports.py differs from graviton-core/src/report.rs: \
         run GRAVITON_UPDATE=1 cargo test -p graviton-py --test reports"
    );
    fs::write(FILE, wanted).unwrap();
}

/// Replaces the part of the file that a report's declaration generates, and checks the rest.
fn renew<R: Report>(file: &mut String) {
    let from = format!("# report: {}\n", R::NAME);
    let (before, rest) = file.split_once(&from).unwrap_or_else(|| panic!("_reports.py has no line {from:?}"));
    let (_, after) = rest.split_once("    # end\n").unwrap_or_else(|| panic!("{from:?} has no end"));
    let by_hand = after.split("\n# report: ").next().unwrap_or_default();
    for field in R::FIELDS.iter().filter(|field| field.is_computed()) {
        let property = property(field);
        assert!(by_hand.contains(&property), "{} is to have this property:\n{property}", R::NAME);
    }
    *file = format!("{before}{from}{}    # end\n{after}", class::<R>());
}

/// The generated part of a report's class.
fn class<R: Report>() -> String {
    let mut text = format!("@dataclass(frozen=True, slots=True)\nclass {}:\n", R::NAME);
    text += &docstring(R::DOC, 4);
    text += "\n";
    let stored: Vec<&Field> = R::FIELDS.iter().filter(|field| !field.is_computed()).collect();
    for field in &stored {
        writeln!(text, "    {}: {}", name(field), python(field.kind)).unwrap();
        text += &docstring(&words(field), 4);
    }
    let values = stored.iter().map(|field| engine(field.kind)).collect::<Vec<_>>().join(", ");
    text += "\n    @classmethod\n";
    let head = format!("    def _from_engine(cls, values: tuple[{values}]) -> Self:\n");
    if head.len() <= COLUMNS {
        text += &head;
    } else {
        writeln!(text, "    def _from_engine(\n        cls, values: tuple[{values}]\n    ) -> Self:")
            .unwrap();
    }
    writeln!(text, "        return cls({})", arguments(&stored)).unwrap();
    text
}

/// The values of the engine as arguments: one by one up to the last converted one, and then all others.
fn arguments(stored: &[&Field]) -> String {
    let value = |at: usize| format!("values[{at}]");
    let converted: Vec<_> =
        stored.iter().enumerate().map(|(at, field)| converted(field.kind, &value(at))).collect();
    let Some(last) = converted.iter().rposition(Option::is_some) else { return "*values".to_owned() };
    let mut arguments: Vec<String> = converted
        .into_iter()
        .take(last + 1)
        .enumerate()
        .map(|(at, converted)| converted.unwrap_or_else(|| value(at)))
        .collect();
    if last + 1 < stored.len() {
        arguments.push(format!("*values[{}:]", last + 1));
    }
    arguments.join(", ")
}

/// The lines of a computed property before its expression.
fn property(field: &Field) -> String {
    let head = format!("    @property\n    def {}(self) -> {}:\n", name(field), python(field.kind));
    head + &docstring(&words(field), 8)
}

/// Python has a type for times, so no name needs a unit.
fn name(field: &Field) -> &'static str {
    match field.kind {
        Kind::Time => field.name.trim_end_matches("_ms"),
        _ => field.name,
    }
}

/// The type of a field.
fn python(kind: Kind) -> &'static str {
    match kind {
        Kind::Count | Kind::Bytes | Kind::Size => "int",
        Kind::Seconds | Kind::Ratio => "float",
        Kind::Flag => "bool",
        Kind::Id => "BlobId",
        Kind::Ids | Kind::Sample => "tuple[BlobId, ...]",
        Kind::Keys => "tuple[str, ...]",
        Kind::Cursor => "str | None",
        Kind::Text => "str",
        Kind::Time => "datetime",
        other => panic!("no Python type is known for {other:?}"),
    }
}

/// The type in the extension module.
fn engine(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "str",
        Kind::Ids | Kind::Sample => "tuple[str, ...]",
        Kind::Time => "int",
        other => python(other),
    }
}

/// The expression that converts the engine's value into the field's value, if they differ.
fn converted(kind: Kind, value: &str) -> Option<String> {
    match kind {
        Kind::Id => Some(format!("known({value})")),
        Kind::Ids | Kind::Sample => Some(format!("tuple(map(known, {value}))")),
        Kind::Time => Some(format!("_time({value})")),
        _ => None,
    }
}

/// The documentation of a field in Python's words.
fn words(field: &Field) -> String {
    field
        .doc
        .replace("; false if", "; ``False`` if")
        .replace(": milliseconds since 1970-01-01 UTC", ", in UTC")
}

/// A docstring, broken into lines.
fn docstring(text: &str, indent: usize) -> String {
    let mut lines = vec![format!("{:indent$}\"\"\"", "")];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        let empty = line.ends_with("\"\"\"") || line.trim().is_empty();
        if empty || line.len() + 1 + word.len() <= COLUMNS {
            *line += if empty { "" } else { " " };
            *line += word;
        } else {
            lines.push(format!("{:indent$}{word}", ""));
        }
    }
    // The closing marks are not a word of their own.
    lines.join("\n") + "\"\"\"\n"
}
