//! A plan as a drawing: boxes and arrows, folded or in full, as DOT, Mermaid
//! or SVG text.
//!
//! Folded, a stage is one box however many rounds and arms it has; what only
//! the round before gives is a dashed arrow.

use crate::plan::Plan;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// A box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boxed {
    /// The step's or stage's name.
    pub name: String,
    /// The kind of stage.
    pub kind: String,
    /// What it stands for, such as `3 rounds x 2`; empty for one step.
    pub times: String,
    /// Whether it is a data set.
    pub is_data: bool,
}

/// An arrow from maker to reader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    /// Box of the maker.
    pub from: usize,
    /// Box of the reader.
    pub to: usize,
    /// Names of the outputs that flow.
    pub outputs: String,
    /// Whether it goes from one round to the next.
    pub next_round: bool,
}

/// Boxes and arrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawing {
    /// The boxes, in the order of declaration.
    pub boxes: Vec<Boxed>,
    /// The arrows, sorted.
    pub arrows: Vec<Arrow>,
}

impl Drawing {
    /// Every step of a plan.
    pub fn full(plan: &Plan) -> Drawing {
        Drawing::of(plan, |step| plan.steps[step].title.clone())
    }

    /// One box for each stage.
    pub fn folded(plan: &Plan) -> Drawing {
        Drawing::of(plan, |step| plan.steps[step].shape.base.clone())
    }

    fn of(plan: &Plan, name_of: impl Fn(usize) -> String) -> Drawing {
        let mut drawing = Drawing::default();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut box_of = Vec::new();
        for (step, planned) in plan.steps.iter().enumerate() {
            let name = name_of(step);
            let place = *places.entry(name.clone()).or_insert_with(|| {
                drawing.boxes.push(Boxed {
                    name,
                    kind: planned.shape.kind.clone(),
                    times: String::new(),
                    is_data: planned.shape.section == "dataset",
                });
                members.push(Vec::new());
                drawing.boxes.len() - 1
            });
            members[place].push(step);
            box_of.push(place);
        }
        for (place, steps) in members.iter().enumerate() {
            let rounds: BTreeSet<_> =
                steps.iter().filter_map(|&step| plan.steps[step].shape.round).collect();
            drawing.boxes[place].times = match (rounds.len(), steps.len()) {
                (_, 1) => String::new(),
                (0, n) => format!("× {n}"),
                (r, n) if r == n => format!("{r} rounds"),
                (r, n) => format!("{r} rounds, {n} steps"),
            };
        }
        drawing.arrows = arrows(plan, &box_of);
        drawing
    }

    /// Graphviz.
    pub fn dot(&self) -> String {
        let mut text =
            String::from("digraph plan {\n  rankdir=TB;\n  node [shape=box, style=rounded];\n");
        for (i, one) in self.boxes.iter().enumerate() {
            let shape = if one.is_data { ", shape=cylinder, style=\"\"" } else { "" };
            line(
                &mut text,
                format_args!(
                    "  n{i} [label=\"{}\"{shape}];",
                    one.lines().join("\\n").replace('"', "\\\"")
                ),
            );
        }
        for arrow in &self.arrows {
            let style = if arrow.next_round { ", style=dashed, constraint=false" } else { "" };
            line(
                &mut text,
                format_args!(
                    "  n{} -> n{} [label=\"{}\"{style}];",
                    arrow.from, arrow.to, arrow.outputs
                ),
            );
        }
        text + "}\n"
    }

    /// Mermaid.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for (i, one) in self.boxes.iter().enumerate() {
            let (open, close) = if one.is_data { ("[(", ")]") } else { ("[", "]") };
            line(
                &mut text,
                format_args!(
                    "  n{i}{open}\"{}\"{close}",
                    one.lines().join("<br/>").replace('"', "#quot;")
                ),
            );
        }
        for arrow in &self.arrows {
            let (line_style, outputs) =
                (if arrow.next_round { "-.->" } else { "-->" }, &arrow.outputs);
            line(
                &mut text,
                format_args!("  n{} {line_style}|{outputs}| n{}", arrow.from, arrow.to),
            );
        }
        text
    }

    /// SVG, in layers from top to bottom.
    pub fn svg(&self) -> String {
        let layers = self.layers();
        let width_of = |one: &Boxed| {
            one.lines().iter().map(|line| line.chars().count()).max().unwrap_or(0) as f64 * 7.0
                + 20.0
        };
        let row_width = |row: &Vec<usize>| {
            row.iter().map(|&b| width_of(&self.boxes[b]) + GAP).sum::<f64>() + GAP
        };
        let width = layers.iter().map(row_width).fold(200.0, f64::max);
        let mut place: Vec<(f64, f64, f64)> = vec![(0.0, 0.0, 0.0); self.boxes.len()]; // left, top, width
        for (depth, row) in layers.iter().enumerate() {
            let mut x = (width - row_width(row)) / 2.0 + GAP;
            for &b in row {
                let w = width_of(&self.boxes[b]);
                place[b] = (x, GAP + depth as f64 * (HEIGHT + DROP), w);
                x += w + GAP;
            }
        }
        let height = layers.len() as f64 * (HEIGHT + DROP) - DROP + 2.0 * GAP;
        let mut text = String::new();
        line(
            &mut text,
            format_args!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\" text-anchor=\"middle\">"
            ),
        );
        text.push_str(HEAD);
        self.arrows.iter().for_each(|arrow| svg_arrow(&mut text, arrow, &place));
        self.boxes.iter().zip(&place).for_each(|(one, at)| svg_box(&mut text, one, *at));
        text + "</svg>\n"
    }

    /// Boxes by the longest way from a start; within a layer near their makers.
    fn layers(&self) -> Vec<Vec<usize>> {
        let mut depth = vec![0usize; self.boxes.len()];
        // Arrows of one round make no ring, so this ends after as many turns as boxes.
        for _ in 0..self.boxes.len() {
            let mut moved = false;
            for arrow in self.arrows.iter().filter(|arrow| !arrow.next_round) {
                if depth[arrow.to] <= depth[arrow.from] && depth[arrow.from] < self.boxes.len() {
                    depth[arrow.to] = depth[arrow.from] + 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let mut layers = vec![Vec::new(); depth.iter().max().map_or(0, |deepest| deepest + 1)];
        depth.iter().enumerate().for_each(|(b, &d)| layers[d].push(b));
        for d in 1..layers.len() {
            let (above, here) = layers.split_at_mut(d);
            let position =
                |b: usize| above[d - 1].iter().position(|&other| other == b).unwrap_or(0);
            let mean = |b: &usize| {
                let near = self.arrows.iter().filter(|a| a.to == *b && depth[a.from] + 1 == d);
                let makers: Vec<usize> = near.map(|a| position(a.from)).collect();
                1000 * makers.iter().sum::<usize>() / makers.len().max(1)
            };
            here[0].sort_by_key(mean);
        }
        layers.retain(|row| !row.is_empty());
        layers
    }
}

impl Boxed {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.name.clone(), self.kind.clone()];
        if !self.times.is_empty() {
            lines[1] = format!("{} ({})", self.kind, self.times);
        }
        lines
    }
}

/// All arrows, those with the same ends made one.
fn arrows(plan: &Plan, box_of: &[usize]) -> Vec<Arrow> {
    let folded = box_of.len() > box_of.iter().collect::<BTreeSet<_>>().len();
    let mut found: BTreeMap<(usize, usize, bool), BTreeSet<&str>> = BTreeMap::new();
    for (step, planned) in plan.steps.iter().enumerate() {
        for input in &planned.inputs {
            let (from, to) = (box_of[input.step], box_of[step]);
            let before = plan.steps[input.step].shape.round;
            let later =
                folded && matches!((before, planned.shape.round), (Some(a), Some(b)) if a < b);
            found.entry((from, to, later || from == to)).or_default().insert(&input.output);
        }
    }
    found
        .into_iter()
        .map(|((from, to, next_round), outputs)| Arrow {
            from,
            to,
            outputs: outputs.into_iter().collect::<Vec<_>>().join(", "),
            next_round,
        })
        .collect()
}

const GAP: f64 = 24.0;
const DROP: f64 = 56.0;
const HEIGHT: f64 = 40.0;
const HEAD: &str = "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";

fn svg_arrow(text: &mut String, arrow: &Arrow, place: &[(f64, f64, f64)]) {
    let ((x1, y1, w1), (x2, y2, w2)) = (place[arrow.from], place[arrow.to]);
    let (dash, shape) = if arrow.next_round || y2 <= y1 {
        let (x1, x2) = (x1 + w1, x2 + w2);
        let (y1, y2) = (y1 + HEIGHT * 0.7, y2 + HEIGHT * 0.3);
        let far = x1.max(x2) + GAP;
        (
            " stroke-dasharray=\"4 3\"",
            format!("M{x1:.0} {y1:.0}C{far:.0} {y1:.0} {far:.0} {y2:.0} {x2:.0} {y2:.0}"),
        )
    } else {
        let (x1, x2, y1) = (x1 + w1 / 2.0, x2 + w2 / 2.0, y1 + HEIGHT);
        let middle = f64::midpoint(y1, y2);
        ("", format!("M{x1:.0} {y1:.0}C{x1:.0} {middle:.0} {x2:.0} {middle:.0} {x2:.0} {y2:.0}"))
    };
    line(
        text,
        format_args!(
            "<path d=\"{shape}\" fill=\"none\" stroke=\"#667\"{dash} marker-end=\"url(#tip)\"><title>{}</title></path>",
            escape(&arrow.outputs)
        ),
    );
}

fn svg_box(text: &mut String, one: &Boxed, (x, y, w): (f64, f64, f64)) {
    let fill = if one.is_data { "#fff4d6" } else { "#e8eefc" };
    line(
        text,
        format_args!(
            "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{w:.0}\" height=\"{HEIGHT:.0}\" rx=\"5\" fill=\"{fill}\" stroke=\"#889\"/>"
        ),
    );
    for (i, words) in one.lines().iter().enumerate() {
        let (middle, base, fill) =
            (x + w / 2.0, y + 17.0 + 15.0 * i as f64, if i == 0 { "#112" } else { "#556" });
        line(
            text,
            format_args!(
                "<text x=\"{middle:.0}\" y=\"{base:.0}\" fill=\"{fill}\">{}</text>",
                escape(words)
            ),
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes everything");
}
