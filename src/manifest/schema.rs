//! The JSON Schema of a whole manifest, for editors; made of the same
//! declarations that read it.

use crate::base::spec::{Field, Spec};
use crate::manifest::{
    Execution, Head, KindInfo, Language, Machine, STEPS, VERSION,
    compare::Compare,
    findings::{Report, Target},
};
use serde_json::{Map, Value as Json, json};

/// The JSON Schema (2020-12) of manifests in `language`.
pub fn schema(language: &Language) -> Json {
    let mut properties = match Head::schema()["properties"].take() {
        Json::Object(properties) => properties,
        _ => Map::new(),
    };
    properties["rekindle"]["const"] = VERSION.into();
    let text = json!({ "type": "string" });
    properties.insert(
        "extends".into(),
        json!({
            "description": "Manifests that this one is laid over, by paths relative to this file.",
            "anyOf": [text, { "type": "array", "items": text }],
        }),
    );
    properties.insert("sweep".into(), sweep());
    properties.insert("resources".into(), Machine::schema());
    properties.insert("report".into(), Report::schema());
    properties.insert("compare".into(), json!({ "type": "array", "items": Compare::schema() }));
    properties.insert("target".into(), json!({ "type": "array", "items": Target::schema() }));
    for resource in &language.resources {
        let section = json!({ "type": "object", "additionalProperties": (resource.schema)() });
        properties.insert(resource.section.to_owned(), section);
    }
    for section in STEPS {
        let kinds = language.kinds.iter().filter(|kind| kind.section == section);
        let steps: Vec<Json> = kinds.map(step).collect();
        let section_schema = json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": { "oneOf": steps },
        });
        properties.insert(section.to_owned(), section_schema);
    }
    let required: Vec<String> =
        Head::fields().into_iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rekindle manifest",
        "description": format!("Version {VERSION} of the manifest language."),
        "type": "object",
        "properties": properties,
        // Another manifest may bring what this one lacks.
        "anyOf": [{ "required": required }, { "required": ["extends"] }],
        "additionalProperties": false,
        "$defs": { "previous": previous(), "by-round": by_round() },
    })
}

fn previous() -> Json {
    json!({
        "type": "object",
        "description": "`previous` of the round before, and `first` in round 1.",
        "properties": { "previous": { "type": "string" }, "first": { "type": "string" } },
        "required": ["previous", "first"],
        "additionalProperties": false,
    })
}

fn by_round() -> Json {
    json!({
        "type": "object",
        "description": "One value for each round, in a step with `each = \"round\"`.",
        "properties": { "by-round": { "type": "array" } },
        "required": ["by-round"],
        "additionalProperties": false,
    })
}

/// The schema of one kind of step: its fields and those of any step, all of
/// them by round, `kind` and `each`. What a manifest extends may give a field, so only `kind` is
/// required.
fn step(kind: &KindInfo) -> Json {
    let mut schema = (kind.schema)();
    if let Json::Object(fields) = &mut schema["properties"] {
        if let Json::Object(shared) = Execution::schema()["properties"].take() {
            fields.extend(shared);
        }
        for field in fields.values_mut() {
            let mut plain = field.take();
            let mut both = json!({});
            for key in ["description", "default"] {
                if let Some(value) = plain.as_object_mut().and_then(|plain| plain.remove(key)) {
                    both[key] = value;
                }
            }
            let by_round = json!({ "$ref": "#/$defs/by-round" });
            both["anyOf"] = json!([plain, by_round]);
            *field = both;
        }
    }
    schema["properties"]["kind"] = json!({ "const": kind.name });
    schema["properties"]["each"] = json!({
        "const": "round",
        "description": "Runs the step once in each round.",
    });
    schema["required"] = json!(["kind"]);
    schema
}

fn sweep() -> Json {
    let text = json!({ "type": "string" });
    let pattern = json!({
        "type": "array",
        "items": { "type": "object" },
        "description": "Combinations, as tables of axis and label or labels.",
    });
    json!({
        "type": "object",
        "description": "Arms to run: the product of the axes.",
        "properties": {
            "axes": {
                "type": "object",
                "description": "Axes: a dotted path and its values, or a name with path and values.",
                "additionalProperties": { "anyOf": [
                    { "type": "array" },
                    { "type": "object" },
                ] },
            },
            "zip": { "type": "array", "items": { "type": "array", "items": text },
                     "description": "Groups of axes that move together." },
            "include": pattern,
            "exclude": pattern,
        },
        "additionalProperties": false,
    })
}
