//! The engine's reports in responses: their JSON and their OpenAPI schemas.
//!
//! Both read the declaration in graviton-core (`Report`), so a new field appears here automatically. The
//! sample of blobs that a collection would delete is left out, because it may be large.

use std::borrow::Cow;

use graviton_core::report::{Field, Kind, Report, Value};
use graviton_core::{GcReport, RepackReport, StoreStats, VerifyReport};
use serde::ser::{Serialize, SerializeMap, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// Declares a type that is one report.
macro_rules! answers {
    ($($name:ident($report:ty)),+) => {$(
        #[derive(Debug, Clone)]
        pub(crate) struct $name(pub(crate) $report);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write_fields(&self.0, serializer)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                describe::<$report>()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                <$report as Report>::NAME.into()
            }
        }
    )+};
}

answers! { Collected(GcReport), Repacked(RepackReport), Verified(VerifyReport), Stats(StoreStats) }

/// Whether the JSON of a report has the field.
fn is_shown(field: &Field) -> bool {
    field.kind != Kind::Sample
}

fn write_fields<S: Serializer>(report: &impl Report, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (field, value) in report.entries().filter(|(field, _)| is_shown(field)) {
        match value {
            Value::Count(number) | Value::Bytes(number) | Value::Size(number) => {
                map.serialize_entry(field.name, &number)?;
            }
            Value::Seconds(number) | Value::Ratio(number) => map.serialize_entry(field.name, &number)?,
            Value::Flag(flag) => map.serialize_entry(field.name, &flag)?,
            Value::Cursor(cursor) => {
                map.serialize_entry(field.name, &cursor.map(ToString::to_string))?;
            }
            Value::Text(text) => map.serialize_entry(field.name, text)?,
            // `describe` panics for these, and the test of the OpenAPI document calls it.
            other => return Err(serde::ser::Error::custom(format!("a report with {other:?}"))),
        }
    }
    map.end()
}

fn describe<R: Report>() -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(sentence(R::DOC)));
    R::FIELDS
        .iter()
        .filter(|field| is_shown(field))
        .fold(object, |object, field| object.property(field.name, describe_field(field)).required(field.name))
        .into()
}

fn describe_field(field: &Field) -> RefOr<Schema> {
    let described = ObjectBuilder::new().description(Some(sentence(field.doc)));
    let (kind, format) = match field.kind {
        Kind::Count | Kind::Bytes => (Type::Integer, KnownFormat::Int64),
        Kind::Seconds | Kind::Ratio => (Type::Number, KnownFormat::Double),
        Kind::Flag => return described.schema_type(Type::Boolean).into(),
        Kind::Text => return described.schema_type(Type::String).into(),
        Kind::Cursor => {
            return described.schema_type(SchemaType::from_iter([Type::String, Type::Null])).into();
        }
        other => panic!("a report of the server has a field of the kind {other:?}"),
    };
    described.schema_type(kind).format(Some(SchemaFormat::KnownFormat(format))).minimum(Some(0)).into()
}

/// Descriptions in the document end without a full stop.
fn sentence(doc: &str) -> String {
    doc.strip_suffix('.').unwrap_or(doc).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_report_has_the_fields_of_its_schema() {
        fn check<R: Report>(report: &impl Serialize) {
            let json = serde_json::to_value(report).unwrap();
            let schema = serde_json::to_value(describe::<R>()).unwrap();
            let sorted = |names: &serde_json::Value| {
                let mut names: Vec<_> = names.as_object().unwrap().keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(sorted(&json), sorted(&schema["properties"]));
            assert_eq!(schema["required"].as_array().unwrap().len(), sorted(&json).len());
        }
        check::<GcReport>(&Collected(GcReport::default()));
        check::<RepackReport>(&Repacked(RepackReport::default()));
        check::<VerifyReport>(&Verified(VerifyReport::default()));
        let json = serde_json::to_value(Verified(VerifyReport::default())).unwrap();
        assert_eq!(json["clean"], true);
        assert_eq!(json["cursor"], serde_json::Value::Null);
    }
}
