//! `graph`: the plan as a drawing.

use crate::{
    cli::{
        Program, Stop,
        arguments::{Format, GraphArguments, Options},
        exit, load,
        talk::Talk,
    },
    plan::graph::Drawing,
};

pub(crate) fn graph(
    program: &Program,
    options: &Options,
    arguments: &GraphArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load::load(program, options, &arguments.manifest, false, talk)?;
    let drawing =
        if arguments.full { Drawing::full(&loaded.plan) } else { Drawing::folded(&loaded.plan) };
    if talk.json {
        let boxes: Vec<_> = drawing
            .boxes
            .iter()
            .map(
                |one| serde_json::json!({ "name": one.name, "kind": one.kind, "times": one.times }),
            )
            .collect();
        let arrows: Vec<_> = drawing
            .arrows
            .iter()
            .map(|arrow| {
                serde_json::json!({
                    "from": drawing.boxes[arrow.from].name, "to": drawing.boxes[arrow.to].name,
                    "outputs": arrow.outputs, "next-round": arrow.next_round,
                })
            })
            .collect();
        talk.json_data(&serde_json::json!({ "boxes": boxes, "arrows": arrows }))?;
        return Ok(exit::OK);
    }
    talk.data(&match arguments.format {
        Format::Dot => drawing.dot(),
        Format::Mermaid => drawing.mermaid(),
        Format::Svg => drawing.svg(),
    })?;
    Ok(exit::OK)
}
