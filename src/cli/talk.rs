//! Printing: data to stdout, talk to stderr. The only place that does.

use crate::{
    base::{
        diag::Diagnostics,
        failure::{Doing, Failure, Outcome},
        node::Sources,
    },
    cli::{
        Program,
        arguments::{Color, Options},
        exit,
    },
    runner::errand,
};
use std::io::{ErrorKind, IsTerminal, Write};

/// How to talk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) color: bool,
    pub(crate) terminal: bool,
}

impl Talk {
    pub(crate) fn new(options: &Options) -> Talk {
        let terminal = std::io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        Talk { json: options.json, quiet: options.quiet, color, terminal }
    }

    /// Prints data. A reader that has gone away is no error.
    pub(crate) fn data(&self, text: &str) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.doing(|| "writing to stdout".to_owned()),
        }
    }

    /// Prints data as JSON.
    pub(crate) fn json_data(&self, value: &serde_json::Value) -> Outcome<()> {
        let text = serde_json::to_string_pretty(value).expect("a value is JSON");
        self.data(&(text + "\n"))
    }

    /// Says something, unless told to be quiet.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.must_say(text);
        }
    }

    /// Says something in any case.
    pub(crate) fn must_say(&self, text: &str) {
        Talk::stderr(text);
    }

    /// Writes a line to stderr.
    pub(crate) fn stderr(text: &str) {
        // Nobody is left to hear of an error here.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Tells the mistakes of a manifest.
    pub(crate) fn diagnostics(&self, found: &Diagnostics, sources: &Sources) -> Outcome<()> {
        if found.is_empty() {
            return Ok(());
        }
        if self.json {
            return self.json_data(&serde_json::json!({ "diagnostics": found.json(sources) }));
        }
        self.must_say(found.render(sources, self.color).trim_end());
        Ok(())
    }

    /// Tells a failure, its causes and what can be done.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.trouble(&failure.chain(), &failure.hints).iter().for_each(|line| self.must_say(line));
    }

    /// The lines of a failure.
    pub(crate) fn trouble(&self, chain: &[String], hints: &[String]) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, line) in chain.iter().enumerate() {
            lines.push(if i == 0 {
                format!("{} {line}", self.paint("error:", "1;31"))
            } else {
                format!("  because {line}")
            });
        }
        lines.extend(hints.iter().map(|hint| {
            format!("  {} {}", self.paint("hint:", "1;36"), hint.replace('\n', "\n    "))
        }));
        lines
    }

    /// Colours a text where colour is wanted.
    pub(crate) fn paint(&self, text: &str, style: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Does what the process of one step does, and says so on stdout, which is a
/// pipe to the runner.
pub(crate) fn serve(program: &Program) -> u8 {
    match errand::serve(program.kinds, &program.numerics, &mut std::io::stdout()) {
        Ok(()) => exit::OK,
        Err(failure) => {
            Talk::stderr(&failure.what);
            exit::ARGUMENTS
        }
    }
}
