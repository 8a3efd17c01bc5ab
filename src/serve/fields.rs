//! The parameters of a request, each taken once and with its type; what is
//! left at the end is refused by name.
//!
//! Knows no parameter's meaning.

use super::complaint::Complaint;
use crate::base::text;
use serde_json::{Map, Value};

/// What reading comes to.
pub(super) type Read<T> = Result<T, Complaint>;

/// The fields of a JSON object that were not taken yet.
#[derive(Debug)]
pub(super) struct Fields {
    /// Where the object is, with a dot behind it; empty for the request itself.
    place: String,
    left: Map<String, Value>,
    /// Every name that was asked for.
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of a request's body.
    pub(super) fn of_body(body: &[u8]) -> Read<Fields> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            Complaint::wrong(format!("the body is not UTF-8: byte {at} cannot be read"))
        })?;
        match serde_json::from_str(text) {
            Ok(Value::Object(left)) => Ok(Fields { place: String::new(), left, known: Vec::new() }),
            Ok(_) => Err(Complaint::wrong("the body must be a JSON object")),
            Err(error) => Err(Complaint::wrong(format!("the body is not JSON: {error}"))),
        }
    }

    /// The fields of an object inside; `place` names it.
    pub(super) fn of_value(place: &str, value: Value) -> Read<Fields> {
        match value {
            Value::Object(left) => {
                Ok(Fields { place: format!("{place}."), left, known: Vec::new() })
            }
            _ => Err(Complaint::about(place, format!("`{place}` must be an object"))),
        }
    }

    /// The full name of a field.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.place)
    }

    /// A complaint about a field.
    pub(super) fn wrong(&self, field: &str, must: &str) -> Complaint {
        let name = self.name(field);
        Complaint::about(&name, format!("`{name}` must be {must}"))
    }

    /// A field's value, if it is there and not null.
    pub(super) fn any(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    /// A field that `read` makes something of; `must` says what it must be.
    pub(super) fn get<T>(
        &mut self,
        field: &'static str,
        must: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Read<Option<T>> {
        let Some(value) = self.any(field) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.wrong(field, must))
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Read<Option<bool>> {
        self.get(field, "true or false", Value::as_bool)
    }

    pub(super) fn string(&mut self, field: &'static str) -> Read<Option<String>> {
        self.get(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A whole number of a range.
    pub(super) fn whole(
        &mut self,
        field: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Read<Option<u64>> {
        let (least, most) = (range.start(), range.end());
        let must = match *most {
            u64::MAX => format!("a whole number from {least}"),
            _ => format!("a whole number from {least} to {most}"),
        };
        self.get(field, &must, |value| value.as_u64().filter(|n| range.contains(n)))
    }

    /// A number of a range.
    pub(super) fn number(
        &mut self,
        field: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Read<Option<f64>> {
        let must = format!("a number from {} to {}", range.start(), range.end());
        self.get(field, &must, |value| value.as_f64().filter(|x| range.contains(x)))
    }

    /// A field that changes nothing as long as it is one of these values.
    pub(super) fn idle(&mut self, field: &'static str, may: &[Value]) -> Read<()> {
        let Some(value) = self.any(field) else { return Ok(()) };
        let same = |one: &Value| match (one.as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *one == value,
        };
        if may.iter().any(same) {
            return Ok(());
        }
        let name = self.name(field);
        let may = may.iter().map(Value::to_string).chain(["null".to_owned()]);
        let may = may.collect::<Vec<_>>().join(" or ");
        let message = format!("this server has no `{name}`: it may only be {may}");
        Err(Complaint::about(&name, message).coded("unsupported_parameter"))
    }

    /// Refuses what was not taken.
    pub(super) fn end(self) -> Read<()> {
        let Some(field) = self.left.keys().next() else { return Ok(()) };
        let short: String = field.chars().take(80).collect();
        let name = self.name(&short);
        let near = text::nearest(&short, self.known.iter().copied());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let message = format!("this server does not know `{name}`{hint}");
        Err(Complaint::about(&name, message).coded("unknown_parameter"))
    }
}
