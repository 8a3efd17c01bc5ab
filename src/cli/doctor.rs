//! `doctor`: which devices there are, and whether each keeps the engine's
//! promises, on a small model of its own or on a checkpoint. Runs no manifest
//! and touches no store.

use crate::{
    base::{
        failure::{Failure, Outcome},
        text,
    },
    cli::{
        Stop,
        arguments::{DoctorArguments, Options},
        exit,
        plan::span,
        talk::Talk,
    },
    engine::{
        config::LlamaConfig,
        device::{self, DeviceChoice, Opened, Probe},
        ops::Precision,
        selftest::{
            self, Finding,
            checkpoint::{self, PARITY, Parity},
        },
        weights,
    },
    host::fs,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Checks the device that was asked for, or every one that works.
pub(crate) fn doctor(
    options: &Options,
    arguments: &DoctorArguments,
    talk: &Talk,
) -> Result<u8, Stop> {
    let asked = options.device.as_deref().filter(|asked| *asked != "auto");
    let asked = asked.map(str::parse::<DeviceChoice>).transpose();
    let asked = asked.map_err(|wrong| Stop::Arguments(Failure::input(wrong)))?;
    let checkpoint = arguments.checkpoint.as_deref().map(Checkpoint::read).transpose()?;
    if let Some(checkpoint) = &checkpoint {
        talk.say(&checkpoint.about());
    }
    let probes = if asked.is_some() { Vec::new() } else { device::probe_all() };
    for Probe { choice, verdict } in &probes {
        if let Err(reason) = verdict {
            talk.say(&format!("no {choice}: {reason}"));
        }
    }
    let working = probes.into_iter().filter(|probe| probe.verdict.is_ok());
    let choices: Vec<_> = working.map(|probe| probe.choice).chain(asked).collect();
    let mut answers = Vec::new();
    let mut holds = true;
    for choice in choices {
        let opened = device::open(&choice)?;
        talk.say(&format!("checking {}", opened.name));
        let start = Instant::now();
        let findings: Vec<Finding> = match &checkpoint {
            Some(checkpoint) => checkpoint.findings(&opened)?,
            None => {
                let mut checks = selftest::checks(opened.is_cpu);
                if opened.can(Precision::Bf16) {
                    checks.extend(selftest::in_bf16());
                }
                checks.into_iter().map(|check| check.run(&opened.device)).collect()
            }
        };
        holds &= findings.iter().all(Finding::holds);
        if talk.json {
            answers.push(as_json(&opened, &findings));
        } else {
            talk.data(&table(&findings))?;
            talk.say(&summary(&opened, &findings, start.elapsed().as_secs_f64()));
        }
    }
    if talk.json {
        talk.json_data(&answers.into())?;
    }
    Ok(if holds { exit::OK } else { exit::ENVIRONMENT })
}

/// A folder in Hugging Face's layout.
struct Checkpoint {
    folder: PathBuf,
    config: LlamaConfig,
    /// All weights as one safetensors file.
    weights: Vec<u8>,
    parity: Option<Parity>,
}

impl Checkpoint {
    fn read(folder: &Path) -> Outcome<Checkpoint> {
        let place = |name: &str| format!("`{}`", folder.join(name).display());
        let file = fs::read(&folder.join("config.json"))?.ok_or_else(|| {
            Failure::input(format!("there is no {}", place("config.json"))).hint(
                "`--checkpoint` is a folder in Hugging Face's layout, such as `export` writes",
            )
        })?;
        let config = LlamaConfig::from_json(&file, &place("config.json"))?;
        let parity = fs::read(&folder.join(PARITY))?
            .map(|bytes| Parity::read(&bytes, &config, &place(PARITY)))
            .transpose()?;
        let found = weights::folder::Weights::find(folder)?;
        // Weights come in many layouts; one file of them is what everything else reads.
        let gathered =
            std::env::temp_dir().join(format!("rekindle-{}.safetensors", std::process::id()));
        let read = found
            .gather(&config, &gathered, &mut |_, _| Ok(()))
            .and_then(|()| Ok(fs::read(&gathered)?.unwrap_or_default()));
        fs::remove_file(&gathered)?;
        Ok(Checkpoint { folder: folder.to_owned(), config, weights: read?, parity })
    }

    fn about(&self) -> String {
        let folder = self.folder.display();
        match &self.parity {
            Some(parity) => {
                let (replies, tokens) = parity.said();
                format!(
                    "`{folder}`: logits, {replies} greedy replies and {tokens} tokens of {}",
                    parity.made_with()
                )
            }
            None => format!(
                "`{folder}` has no `{PARITY}`, so that nothing says what other libraries make of \
                 it; `tests/fixtures/parity.py {folder}` of this program's sources writes one with \
                 transformers"
            ),
        }
    }

    fn findings(&self, opened: &Opened) -> Outcome<Vec<Finding>> {
        let model = weights::load(self.config.clone(), &self.weights, &opened.device)?;
        let checks = checkpoint::checks(&model, self.parity.as_ref(), opened.is_cpu).into_iter();
        Ok(checks.map(|check| check.run(&opened.device)).collect())
    }
}

fn table(findings: &[Finding]) -> String {
    let mut rows =
        vec![["check", "largest difference", "allowed", "time", ""].map(str::to_owned).to_vec()];
    let number = |x: f64| if x == 0.0 { "none".to_owned() } else { format!("{x:.1e}") };
    for finding in findings {
        let measured = match &finding.measured {
            Ok(measured) => number(*measured),
            Err(_) => "-".to_owned(),
        };
        let verdict = match &finding.measured {
            _ if finding.holds() => "holds".to_owned(),
            Ok(_) => "FAILS".to_owned(),
            Err(reason) => format!("FAILS: {reason}"),
        };
        let time = span(finding.seconds);
        rows.push(vec![finding.what.to_owned(), measured, number(finding.bound), time, verdict]);
    }
    text::columns(&rows, &[1, 2, 3])
}

fn summary(opened: &Opened, findings: &[Finding], seconds: f64) -> String {
    let failed = findings.iter().filter(|finding| !finding.holds()).count();
    let verdict = match failed {
        0 => "all hold".to_owned(),
        n => format!("{n} fail: do not trust numbers from this device"),
    };
    let checks = text::plural(findings.len() as u64, "check");
    format!("{}: {checks} in {}, {verdict}", opened.name, span(seconds))
}

fn as_json(opened: &Opened, findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "check": finding.what,
            "allowed": finding.bound,
            "measured": finding.measured.as_ref().ok(),
            "error": finding.measured.as_ref().err(),
            "holds": finding.holds(),
            "seconds": finding.seconds,
        })
    };
    let checks: Vec<Value> = findings.iter().map(one).collect();
    json!({ "device": opened.name, "numerics": opened.numerics(), "checks": checks })
}
