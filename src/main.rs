//! The program `rekindle`: hands the tables of the library to the command line.

use rekindle::{cli, report, stages};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(&cli::Program {
        kinds: stages::KINDS,
        resources: stages::RESOURCES,
        numerics: stages::numerics,
        device_name: stages::device_name,
        render: report::render,
    })
}
