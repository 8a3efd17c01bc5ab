//! The command line: what can be asked for, and in which words it is answered.
//!
//! The only floor that prints and reads the environment. It names no kind of stage,
//! and no device but in `doctor`; those come in as a [`Program`].

mod again;
mod arguments;
mod behind;
mod budget;
mod console;
mod doctor;
pub mod exit;
mod export;
mod faults;
mod graph;
mod kinds;
mod load;
mod machine;
mod pack;
mod plan;
mod report;
mod run;
mod serve;
mod standing;
mod status;
mod talk;
mod upkeep;
mod why;

use crate::{
    base::failure::{Failure, Outcome},
    host::{http, process},
    manifest::{Language, ResourceInfo},
    report::collected::Collected,
    runner::errand,
    stages::kind::Kind,
};
use arguments::{Action, Arguments};
use clap::Parser;
use std::process::ExitCode;
use talk::Talk;

/// The tables that make a program of this library.
pub struct Program {
    /// The kinds of stages.
    pub kinds: &'static [&'static Kind],
    /// The kinds of shared tables.
    pub resources: &'static [ResourceInfo],
    /// The class of arithmetic of a device: whatever results depend on.
    pub numerics: fn(&str) -> Outcome<String>,
    /// The name of the device that a choice comes to, and why not another.
    pub device_name: fn(&str) -> Outcome<String>,
    /// The files of a report: name and content.
    pub render: fn(&Collected) -> Vec<(String, String)>,
}

impl Program {
    /// The language of its manifests.
    pub fn language(&self) -> Language {
        let kinds = self.kinds.iter().map(|kind| kind.info()).collect();
        Language { kinds, resources: self.resources.to_vec() }
    }
}

/// What ends a command early.
pub(crate) enum Stop {
    /// The manifest has mistakes, and they have been told.
    Manifest,
    /// The manifest cannot be read as text.
    Unreadable(Failure),
    /// The arguments make no sense.
    Arguments(Failure),
    /// The world did not do its part.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// Parses the arguments, does what they ask for.
pub fn main(program: &Program) -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == process::WATCH) {
        process::watch_groups();
        return exit::code(exit::OK);
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == errand::STEP) {
        return exit::code(talk::serve(program));
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; they go to stdout.
            let code = if error.use_stderr() { exit::ARGUMENTS } else { exit::OK };
            let _ = error.print();
            return exit::code(code);
        }
    };
    let talk = Talk::new(&arguments.options);
    let options = &arguments.options;
    if let Some(folder) = &options.mirror {
        http::use_mirror(folder.clone());
    }
    let done = match &arguments.action {
        Action::Run(run) => run::run(program, options, run, &talk),
        Action::Check(manifest) => load::check(program, options, manifest, &talk),
        Action::Plan(manifest) => plan::plan(program, options, manifest, &talk),
        Action::Graph(graph) => graph::graph(program, options, graph, &talk),
        Action::Status(manifest) => status::status(program, options, manifest, &talk),
        Action::Why(why) => why::why(program, options, why, &talk),
        Action::Report(manifest) => report::report(program, options, manifest, &talk),
        Action::Doctor(doctor) if doctor.faults => faults::faults(program, options, doctor, &talk),
        Action::Doctor(doctor) => doctor::doctor(options, doctor, &talk),
        Action::Export(export) => export::export(program, options, export, &talk),
        Action::Serve(serve) => serve::serve(program, options, serve, &talk),
        Action::Pack(pack) => pack::pack(program, options, pack, &talk),
        Action::Unpack(unpack) => pack::unpack(options, unpack, &talk),
        Action::Verify(verify) => match (&verify.manifest, verify.recompute) {
            (Some(manifest), Some(share)) => {
                again::recompute(program, options, manifest, share, verify.sample, &talk)
            }
            _ => upkeep::verify(options, &talk),
        },
        Action::Gc(gc) => upkeep::gc(options, gc, &talk),
        Action::Schema => kinds::schema(program, &talk),
        Action::Kinds { name } => kinds::kinds(program, options, name.as_deref(), &talk),
    };
    exit::code(match done {
        Ok(code) => code,
        Err(Stop::Manifest) => exit::MANIFEST,
        Err(Stop::Unreadable(failure)) => {
            talk.failure(&failure);
            exit::MANIFEST
        }
        Err(Stop::Arguments(failure)) => {
            talk.failure(&failure);
            exit::ARGUMENTS
        }
        Err(Stop::Failed(failure)) => {
            talk.failure(&failure);
            exit::of(&failure)
        }
    })
}
