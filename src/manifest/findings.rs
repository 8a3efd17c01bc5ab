//! What a manifest wants to see in the end: the models of its report, the
//! comparisons between them, and the published values they are held against.

use crate::base::{
    artifact::{Dialogues, Scores, Tally, TrainLog},
    diag::Diagnostic,
    node::{Node, Value},
    spec::{Field, Reading, Ref, choice, spec},
    text,
};
use crate::manifest::compare::Compare;
use std::collections::BTreeMap;

spec! {
    /// The report that is written when everything is done.
    pub struct Report {
        /// Heading of the report; the manifest's name when absent.
        title: Option<String>,
        /// The models in its table, in order. One whose texts hold `{round}`
        /// stands for one model per round.
        models: Vec<ReportModel> = Vec::new(),
        /// Dialogues whose texts are shown in full, problem by problem. One whose texts hold
        /// `{round}` stands for one per round.
        cases: Vec<ReportCase> = Vec::new(),
        /// What is taken over from a paper and nobody has checked against it yet: a list to tick
        /// off at the end of the page.
        unverified: Vec<String> = Vec::new(),
    }
}

spec! {
    /// One model of the report's table.
    #[spread(per_round)]
    pub struct ReportModel {
        /// Its name in tables; `[[compare]]` and `[[target]]` use it too.
        label: String,
        /// Its evaluation.
        scores: Ref<Scores>,
        /// Label of the model that paired tests compare it with.
        control: Option<String>,
        /// The training that made it.
        log: Option<Ref<TrainLog>>,
        /// The filtering of the data it was trained on.
        tally: Option<Ref<Tally>>,
        /// Its place on the chart over rounds; given by itself where `{round}`
        /// is used.
        round: Option<u64>,
    }
}

spec! {
    /// One model's dialogues among the cases of a report.
    #[spread(case_per_round)]
    pub struct ReportCase {
        /// Whose they are.
        label: String,
        /// The dialogues.
        dialogues: Ref<Dialogues>,
    }
}

spec! {
    /// A published value that a result is held against.
    pub struct Target {
        /// Label of the model in the report.
        subject: String,
        /// Mode of evaluation.
        mode: String = "direct".into(),
        /// Data set that was evaluated on.
        dataset: Option<String>,
        /// Labels on axes of the sweep of the arms it is about; all arms when empty.
        arm: BTreeMap<String, String> = BTreeMap::new(),
        /// The number that is compared.
        metric: Metric = Metric::Accuracy,
        /// The published value, in percent.
        paper: f64,
        /// Where it stands: a table, figure or section.
        table: Option<String>,
        /// How sure the published value is, shown wherever the value is.
        source_confidence: String,
        /// How near is near enough; absent, the two are only shown side by side.
        accept: Option<Accept>,
    }
}

spec! {
    /// How near to a published value a result must come: one of the three.
    #[check(one_tolerance)]
    pub struct Accept {
        /// Largest absolute difference, in points.
        abs: Option<f64>,
        /// Largest difference relative to the published value.
        rel: Option<f64>,
        /// The published value must lie in this interval around the result.
        within: Option<Interval>,
    }
}

choice! {
    /// A number of a model that papers report.
    pub enum Metric {
        /// Share of problems answered right.
        Accuracy = "accuracy",
        /// Share of verdicts of its feedback that agree with the gold answer.
        FeedbackAccuracy = "feedback-accuracy",
        /// Share of its wrong answers that its feedback calls incorrect.
        FeedbackRecall = "feedback-recall",
        /// Share of pairs that a judge gave to it.
        WinRate = "win-rate",
        /// The same, with half a win for a tie.
        WinAndHalfTies = "win-and-half-ties",
        /// Share of right answers in the data it was trained on, as its `tally` counts them.
        DataAccuracy = "data-accuracy",
    }
}

choice! {
    /// An interval around a result.
    pub enum Interval {
        /// The 95 % confidence interval.
        Ci95 = "ci95",
    }
}

/// Everything a manifest wants to see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The report, if one is asked for.
    pub report: Option<Report>,
    /// The comparisons.
    pub compare: Vec<Compare>,
    /// The published values.
    pub target: Vec<Target>,
}

impl Findings {
    /// Reads them from the top of a manifest; labels must be those of the report.
    pub fn read(root: &Node, cx: &mut Reading) -> Findings {
        let node = |key: &str| root.table().and_then(|table| table.get(key));
        let report =
            node("report").and_then(|node| cx.within("report", None, |cx| Field::parse(node, cx)));
        let findings = Findings {
            report,
            compare: node("compare").and_then(|node| list(node, "compare", cx)).unwrap_or_default(),
            target: node("target").and_then(|node| list(node, "target", cx)).unwrap_or_default(),
        };
        findings.check_labels(root, cx);
        findings
    }

    fn check_labels(&self, root: &Node, cx: &mut Reading) {
        // Without a report that could be read, nothing can be said of labels.
        let Some(report) = &self.report else { return };
        let labels: Vec<&str> = report.models.iter().map(|model| model.label.as_str()).collect();
        let mut check = |at: Option<&Node>| {
            let Some((node, label)) = at.and_then(|node| Some((node, node.text()?))) else {
                return;
            };
            if labels.contains(&label) || label.contains("{round}") {
                return;
            }
            let hint = text::suggestion(label, "labels", labels.iter().copied());
            let message = format!("no model of the report has the label `{label}`");
            cx.push_absent(Diagnostic::error(message).at(&node.origin).hint(hint));
        };
        let each = |section: &'static str| {
            let list = root.at(section.split('.')).and_then(Node::array);
            list.unwrap_or_default().iter()
        };
        for node in each("report.models") {
            check(node.at(["control"]));
        }
        for node in each("compare") {
            check(node.at(["a"]));
            check(node.at(["b"]));
        }
        for node in each("target") {
            check(node.at(["subject"]));
        }
    }
}

fn list<T: Field>(node: &Node, section: &str, cx: &mut Reading) -> Option<Vec<T>> {
    cx.within(section, None, |cx| Field::parse(node, cx))
}

/// One model whose texts hold `{round}` becomes one for each round, whose
/// references mean that round.
fn per_round(node: &Node, cx: &Reading) -> Option<Vec<Node>> {
    in_every_round(node, cx, true)
}

fn case_per_round(node: &Node, cx: &Reading) -> Option<Vec<Node>> {
    in_every_round(node, cx, false)
}

fn in_every_round(node: &Node, cx: &Reading, numbered: bool) -> Option<Vec<Node>> {
    let (table, names) = (node.table()?, cx.names()?);
    let mut texts = table.iter().filter_map(|(_, entry)| entry.node.text());
    if !texts.any(|text| text.contains("{round}")) {
        return None;
    }
    let one = |round: u32| {
        let mut table = table.clone();
        for (key, entry) in node.table().into_iter().flat_map(|table| table.iter()) {
            let Some(text) = entry.node.text() else { continue };
            let text = text.replace("{round}", &round.to_string());
            let head = text.split('.').next().unwrap_or_default();
            let is_reference = matches!(key, "scores" | "log" | "tally" | "dialogues");
            let in_rounds = is_reference && names.steps.get(head) == Some(&true);
            let text = if in_rounds { format!("round{round}.{text}") } else { text };
            let value = Node::new(entry.node.origin.clone(), Value::Text(text.into()));
            table.insert(key, entry.key.clone(), value);
        }
        if numbered && table.get("round").is_none() {
            let number = Node::new(node.origin.clone(), Value::Int(i64::from(round)));
            table.insert("round", node.origin.clone(), number);
        }
        Node::new(node.origin.clone(), Value::Table(table))
    };
    Some((1..=names.rounds).map(one).collect())
}

fn one_tolerance(accept: &Accept, node: &Node, cx: &mut Reading) {
    let given = [accept.abs.is_some(), accept.rel.is_some(), accept.within.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = format!("`{}` wants one of `abs`, `rel` and `within`", cx.path());
        cx.error(&node.origin, message);
    }
}
