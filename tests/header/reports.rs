//! `src/reports.rs` and the `_INIT` macros of reports, made from `graviton_core::report`.
//!
//! A committed struct keeps its layout: its fields stay in place, whatever the order of the declaration, and
//! new ones follow them. A struct that got fields says how long it was before.

use std::fmt::Write;

use graviton_core::report::{Field, Kind, Report};

const HEAD: &str = r"//! The reports of the core as C structs. Made from `graviton_core::report` by `tests/header`.
//! Renew it with `GRAVITON_UPDATE=1 cargo test -p graviton-header`.

use std::ffi::c_char;

use graviton_core::{
    BlobStat, CopyReport, GcReport, PutReceipt, RepackReport, RepairReport, StoreStats, VerifyReport,
};

use crate::blob_id::graviton_blob_id;
use crate::pointer::fill_text;
use crate::versioned::Versioned;

/// The size of a buffer for the text of any chunker with its NUL, in bytes.
pub const GRAVITON_CHUNKER_TEXT_MAX: usize = 544;

/// The size of a buffer for a failure in a report with its NUL, in bytes; a longer one is cut off.
pub const GRAVITON_FAILURE_TEXT_MAX: usize = 512;

/// The size of a buffer for any verification cursor with its NUL, in bytes.
pub const GRAVITON_VERIFY_CURSOR_MAX: usize = 128;
";

/// A field of a C struct.
struct Member {
    name: String,
    doc: String,
    rust_type: String,
    /// How it is made from `report`.
    value: String,
    initial: &'static str,
    /// Longer alignments come first, texts last.
    rank: u8,
}

impl Member {
    fn of(field: &Field) -> Option<Member> {
        let path = format!("report.{}", field.path.replace(' ', ""));
        let text = |length| (format!("[c_char; {length}]"), "{ 0 }", 4);
        let ((rust_type, initial, rank), value) = match field.kind {
            Kind::Id => {
                (("graviton_blob_id".to_owned(), "{ 0, 0, 0, { 0 } }", 0), format!("(&{path}).into()"))
            }
            Kind::Count | Kind::Bytes => (("u64".to_owned(), "0", 1), path),
            Kind::Time => (("i64".to_owned(), "0", 1), path),
            Kind::Ids | Kind::Keys | Kind::Sample => (("usize".to_owned(), "0", 1), format!("{path}.len()")),
            Kind::Seconds | Kind::Ratio => (("f64".to_owned(), "0.0", 2), path),
            Kind::Flag => (("i32".to_owned(), "0", 3), format!("i32::from({path})")),
            Kind::Cursor => {
                let some = format!("{path}.as_ref().map(ToString::to_string)");
                (
                    text("GRAVITON_VERIFY_CURSOR_MAX".to_owned()),
                    format!("fill_text(&{some}.unwrap_or_default())"),
                )
            }
            Kind::Text => {
                let length = format!("GRAVITON_{}_TEXT_MAX", field.name.to_uppercase());
                (text(length), format!("fill_text(&{path})"))
            }
            Kind::Size => return None,
            other => panic!("{other:?} has no form in C"),
        };
        let list = matches!(field.kind, Kind::Ids | Kind::Keys | Kind::Sample);
        let name = if list { format!("{}_count", field.name) } else { field.name.to_owned() };
        Some(Member { name, doc: doc(field), rust_type, value, initial, rank })
    }

    /// A field that keeps the structure free of holes.
    fn reserved(name: &str) -> Member {
        Member {
            name: name.to_owned(),
            doc: "0.".to_owned(),
            rust_type: "u32".to_owned(),
            value: "0".to_owned(),
            initial: "0",
            rank: 3,
        }
    }
}

/// The documentation of a field, in the words of C.
fn doc(field: &Field) -> String {
    match field.kind {
        Kind::Flag => {
            let condition =
                field.doc.strip_prefix("Whether ").expect("the documentation of a flag: Whether ...");
            match condition.split_once("; false if ") {
                Some((yes, no)) => format!("1 if {yes}; 0 if {no}"),
                None => format!("1 if {}, otherwise 0.", condition.trim_end_matches('.')),
            }
        }
        Kind::Ids | Kind::Keys | Kind::Sample => {
            let (first, rest) = field.doc.split_at(1);
            format!("The length of `{}`, which the callback gets: {}{rest}", field.name, first.to_lowercase())
        }
        Kind::Text => format!("{} NUL-terminated.", field.doc),
        Kind::Cursor => format!("{} Otherwise empty. NUL-terminated.", field.doc),
        _ => field.doc.to_owned(),
    }
}

/// `graviton_gc_report` for `GcReport`.
fn c_name(name: &str) -> String {
    let mut text = "graviton".to_owned();
    for letter in name.chars() {
        if letter.is_uppercase() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// A C struct: its fields, and the first of the fields that each version added.
struct Struct {
    name: String,
    core_name: &'static str,
    doc: &'static str,
    members: Vec<Member>,
    added: Vec<String>,
}

impl Struct {
    fn of<R: Report>(committed: &str) -> Struct {
        let name = c_name(R::NAME);
        let mut new: Vec<Member> = R::FIELDS.iter().filter_map(Member::of).collect();
        let mut members = Vec::new();
        let body = body(committed, &format!("pub struct {name} {{\n"));
        for field in body.lines().filter_map(|line| line.strip_prefix("    pub ")?.split(':').next()) {
            if let Some(index) = new.iter().position(|member| member.name == field) {
                members.push(new.remove(index));
            } else if field.starts_with("reserved") {
                members.push(Member::reserved(field));
            }
        }
        let versions = self::body(committed, &format!("impl Versioned for {name} {{\n"));
        let mut added: Vec<String> = versions
            .split("offset_of!(")
            .skip(1)
            .filter_map(|text| Some(text.split_once(", ")?.1.split_once(')')?.0.to_owned()))
            .collect();
        new.sort_by_key(|member| member.rank);
        if !members.is_empty() {
            added.extend(new.first().map(|first| first.name.clone()));
        }
        let flags = new.iter().filter(|member| member.rank == 3).count();
        if flags % 2 == 1 {
            let number = members.iter().filter(|member| member.name.starts_with("reserved")).count();
            let reserved =
                if number == 0 { "reserved".to_owned() } else { format!("reserved_{}", number + 1) };
            let end = new.iter().rposition(|member| member.rank == 3).map_or(new.len(), |last| last + 1);
            new.insert(end, Member::reserved(&reserved));
        }
        members.extend(new);
        Struct { name, core_name: R::NAME, doc: R::DOC, members, added }
    }

    fn init_name(&self) -> String {
        format!("{}_INIT", self.name.to_uppercase())
    }

    fn rust(&self) -> String {
        let Struct { name, core_name, .. } = self;
        let mut text = String::new();
        let about = format!("{} Set `struct_size` before a call, with {}.", self.doc, self.init_name());
        comment(&mut text, "", &about);
        writeln!(text, "#[repr(C)]\n#[derive(Clone, Copy)]\npub struct {name} {{").unwrap();
        writeln!(text, "    /// sizeof({name}).\n    pub struct_size: usize,").unwrap();
        for member in &self.members {
            comment(&mut text, "    ", &member.doc);
            writeln!(text, "    pub {}: {},", member.name, member.rust_type).unwrap();
        }
        writeln!(text, "}}\n\n// SAFETY: begins with its size, and numbers are valid for any bytes.")
            .unwrap();
        writeln!(text, "unsafe impl Versioned for {name} {{\n    const NAME: &'static str = \"{name}\";")
            .unwrap();
        let added = self.added.iter().map(|field| format!("std::mem::offset_of!({name}, {field})"));
        let added: Vec<String> = added.collect();
        if !added.is_empty() {
            // As rustfmt has it.
            let line = format!("    const EARLIER: &'static [usize] = &[{}];", added.join(", "));
            if line.len() > 110 {
                let lines = added.join(",\n        ");
                writeln!(text, "    const EARLIER: &'static [usize] = &[\n        {lines},\n    ];").unwrap();
            } else {
                writeln!(text, "{line}").unwrap();
            }
        }
        writeln!(text, "}}\n\nimpl From<&{core_name}> for {name} {{").unwrap();
        writeln!(text, "    fn from(report: &{core_name}) -> {name} {{\n        {name} {{").unwrap();
        writeln!(text, "            struct_size: size_of::<{name}>(),").unwrap();
        for member in &self.members {
            writeln!(text, "            {}: {},", member.name, member.value).unwrap();
        }
        text + "        }\n    }\n}\n"
    }

    fn init(&self) -> String {
        let mut initial = String::new();
        for member in &self.members {
            write!(initial, ", {}", member.initial).unwrap();
        }
        let Struct { name, .. } = self;
        format!(
            "/** Initialises a {name}. */\n#define {} {{ sizeof({name}){initial} }}\n\n",
            self.init_name()
        )
    }
}

/// The text between `start` and the brace that ends it.
fn body<'a>(text: &'a str, start: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once("\n}")).map_or("", |(body, _)| body)
}

/// Adds a documentation comment in lines of up to 110 columns.
fn comment(to: &mut String, indent: &str, text: &str) {
    let mut line = format!("{indent}///");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 110 {
            writeln!(to, "{line}").unwrap();
            line = format!("{indent}///");
        }
        line = format!("{line} {word}");
    }
    writeln!(to, "{line}").unwrap();
}

/// The new text of `src/reports.rs`, given the committed one, and the macros of the header.
pub(crate) fn made(committed: &str) -> (String, String) {
    macro_rules! structs {
        ($($name:ident),+) => {
            [$(Struct::of::<graviton_core::$name>(committed)),+]
        };
    }
    let structs = graviton_core::each_report!(structs);
    let rust = structs.iter().map(|report| format!("\n{}", report.rust()));
    (HEAD.to_owned() + &rust.collect::<String>(), structs.iter().map(Struct::init).collect())
}
