//! `kinds` and `schema`: what the language of manifests knows.

use crate::{
    base::{
        failure::Failure,
        spec::{FieldDoc, Spec},
        text,
    },
    cli::{Program, Stop, arguments::Options, exit, talk::Talk},
    manifest::Execution,
    stages::kind::Kind,
};
use serde_json::json;

pub(crate) fn schema(program: &Program, talk: &Talk) -> Result<u8, Stop> {
    talk.json_data(&crate::manifest::schema(&program.language()))?;
    Ok(exit::OK)
}

/// The default of a field of a kind, as text.
pub(crate) fn default_of(program: &Program, kind: &str, path: &str) -> Option<String> {
    let kind = program.kinds.iter().find(|one| one.name == kind)?;
    let field = (kind.fields)().into_iter().find(|field| field.name == path)?;
    field.default
}

pub(crate) fn kinds(
    program: &Program,
    options: &Options,
    name: Option<&str>,
    talk: &Talk,
) -> Result<u8, Stop> {
    let Some(name) = name else {
        let rows: Vec<Vec<String>> = program
            .kinds
            .iter()
            .map(|kind| {
                let doc = (kind.doc)().lines().next().unwrap_or_default().to_owned();
                vec![kind.name.to_owned(), kind.section.to_owned(), doc]
            })
            .collect();
        if options.json {
            talk.json_data(&program.kinds.iter().map(|kind| as_json(kind)).collect())?;
        } else {
            talk.data(&text::columns(&rows, &[]))?;
        }
        return Ok(exit::OK);
    };
    let Some(kind) = program.kinds.iter().find(|kind| kind.name == name) else {
        let names = program.kinds.iter().map(|kind| kind.name);
        let failure = Failure::input(format!("there is no kind `{name}`"));
        return Err(Stop::Arguments(failure.hint(text::suggestion(name, "kinds", names))));
    };
    if options.json {
        talk.json_data(&as_json(kind))?;
    } else {
        talk.data(&explain(kind))?;
    }
    Ok(exit::OK)
}

fn explain(kind: &Kind) -> String {
    let mut lines =
        format!("[{}.<name>]\nkind = \"{}\"\n\n{}\n", kind.section, kind.name, (kind.doc)());
    for field in (kind.fields)() {
        let default = match &field.default {
            Some(default) => format!(" = {default}"),
            None if field.required => ", required".to_owned(),
            None => ", optional".to_owned(),
        };
        let exec = if field.exec { "; never part of the identity" } else { "" };
        lines += &format!("\n  {}: {}{default}{exec}\n", field.name, field.type_name);
        field.doc.lines().for_each(|line| lines += &format!("      {line}\n"));
    }
    lines += "\nAny step may also have these, which are never part of the identity:\n";
    <Execution as Spec>::fields().iter().for_each(|field| lines += &line_of(field));
    lines
}

fn line_of(field: &FieldDoc) -> String {
    let default =
        field.default.as_ref().map_or(", optional".to_owned(), |text| format!(" = {text}"));
    let mut lines = format!("\n  {}: {}{default}\n", field.name, field.type_name);
    field.doc.lines().for_each(|line| lines += &format!("      {line}\n"));
    lines
}

fn as_json(kind: &Kind) -> serde_json::Value {
    let fields: Vec<_> = (kind.fields)()
        .into_iter()
        .map(|field| {
            json!({
                "name": field.name, "type": field.type_name, "default": field.default,
                "required": field.required, "exec": field.exec, "doc": field.doc,
            })
        })
        .collect();
    json!({
        "name": kind.name, "section": kind.section, "version": kind.version,
        "seeded": kind.seeded, "doc": (kind.doc)(), "fields": fields,
    })
}
