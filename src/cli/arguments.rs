//! What a person can type.

use crate::{
    base::quantity::Bytes,
    cli::{
        budget::{self, Budget},
        exit,
    },
    manifest::Devices,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs experiments that are written down, and never the same step twice.
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, about, after_help = exit::HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options for every command")]
pub(crate) struct Options {
    /// Folder that holds all results by content.
    #[arg(
        long,
        global = true,
        env = "REKINDLE_STORE",
        default_value = ".rekindle",
        value_name = "FOLDER",
        hide_env_values = true
    )]
    pub(crate) store: PathBuf,
    /// Set a value of the manifest, as in `--set stage.train.steps=100`; may be repeated.
    #[arg(long = "set", global = true, value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Device to run on: `auto`, `cpu`, `wgpu`, `cuda` or `cuda:N`; overrides the manifest's. With
    /// `/f32` or `/bf16` behind it, it overrides the manifest's precision too.
    #[arg(long, global = true)]
    pub(crate) device: Option<String>,
    /// Steps that run at the same time; the number of cores if not given. None waits for memory,
    /// cards or cores but those that ask for some in `resources`.
    #[arg(long, short, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Cores that steps may keep busy, all together; those of this machine if not given. Overrides
    /// the manifest's `[resources]`, as the next two do.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cpus: Option<u16>,
    /// Memory that steps may take, such as `16GiB`; what is free if not given.
    #[arg(long, global = true, value_name = "BYTES")]
    pub(crate) memory: Option<Bytes>,
    /// Graphics cards that steps may take: numbers or names with commas between, or `none`; those
    /// of this machine if not given.
    #[arg(long, global = true, value_name = "CARDS")]
    pub(crate) devices: Option<Devices>,
    /// Folder with copies of the public files that data sets fetch, each at its `mirror-path`.
    #[arg(
        long,
        global = true,
        env = "REKINDLE_MIRROR",
        value_name = "FOLDER",
        hide_env_values = true
    )]
    pub(crate) mirror: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but mistakes and results.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Whether to use colour; `NO_COLOR` is honoured.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolate {
    Never,
    Cards,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run what must be run, then write the report.
    Run(RunArguments),
    /// Tell all mistakes of a manifest; run nothing.
    Check(ManifestArgument),
    /// Show what is stored, what would run, why, and how long it may take.
    Plan(ManifestArgument),
    /// Draw the steps and what flows between them.
    Graph(GraphArguments),
    /// Show how each step stands and what the last run did.
    Status(ManifestArgument),
    /// Explain why a step would run, or where its result came from.
    Why(WhyArguments),
    /// Write the report of a finished experiment again.
    Report(ReportArguments),
    /// Check that devices compute what they should: all that work, or the one of `--device`. With
    /// `--faults`, check that no kill, disk or clock of this machine harms a result.
    Doctor(DoctorArguments),
    /// Write a stored model as a folder that Hugging Face's libraries load, or another output as
    /// its files are.
    Export(ExportArguments),
    /// Let programs talk to a model over HTTP, as they talk to OpenAI's: `/v1/completions`,
    /// `/v1/chat/completions` and `/v1/models`, whole or streamed. The first Ctrl-C finishes what was
    /// begun and refuses what is new, the second stops at once.
    Serve(ServeArguments),
    /// Put a finished study into one file: records, contents, manifest, journals and report.
    Pack(PackArguments),
    /// Check such a file and take it into the store.
    Unpack(UnpackArguments),
    /// Read every stored byte again; damaged results are put aside, and the next run makes them
    /// anew. Or make some results again and compare.
    Verify(VerifyArguments),
    /// Take out of the store what nothing refers to any more, and what there is no room for.
    Gc(GcArguments),
    /// Print the JSON Schema of manifests, for editors.
    Schema,
    /// List the kinds of stages, or explain one with all its fields.
    Kinds {
        /// The kind to explain.
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ManifestArgument {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// End with code 6 where a published value is not reproduced, or a comparison comes out against
    /// what the manifest expects; with `--check=all`, also where either is open.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "contradicted"
    )]
    pub(crate) check: Option<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Nothing wanted may be contradicted.
    Contradicted,
    /// All that is wanted must hold.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// After a failure, go on with steps that do not depend on it.
    #[arg(long, conflicts_with = "fail_fast")]
    pub(crate) keep_going: bool,
    /// After a failure, start nothing new; this is the default.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Read every stored byte again before trusting it.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Steps that get a process of their own, so that no crash of theirs ends the run: those on a
    /// graphics card, or all that compute. A step's `isolate` comes before it.
    #[arg(long, value_enum, default_value_t = Isolate::Cards, value_name = "WHICH")]
    pub(crate) isolate: Isolate,
    /// Make again what was left out of a pack or taken out to save space, instead of waiting until a
    /// step needs it.
    #[arg(long)]
    pub(crate) refill: bool,
    /// Do not start what will probably take more than this: `5USD`, `2h`, `20GiB`; may be repeated. A
    /// run that still goes on when its time is over stops as with Ctrl-C.
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) budget: Vec<Budget>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// With `--recompute`: the manifest whose steps are made again.
    #[arg(requires = "recompute")]
    pub(crate) manifest: Option<PathBuf>,
    /// Make this share of a manifest's stored steps again, beside the store, and compare all bytes.
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "manifest")]
    pub(crate) recompute: Option<f64>,
    /// Which steps: the same number takes the same ones again.
    #[arg(long, value_name = "NUMBER", requires = "recompute")]
    pub(crate) sample: Option<u64>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%').parse() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value),
        _ => Err("it is a share above 0 and up to 100, such as `5%`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct GraphArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// Format of the drawing.
    #[arg(long, value_enum, default_value_t = Format::Dot)]
    pub(crate) format: Format,
    /// Draw every round and arm instead of one box for each stage.
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Dot,
    Mermaid,
    Svg,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// A step, such as `train` or `round2.answers`, or with an arm `train{seed=1}`.
    pub(crate) step: String,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Check a checkpoint on these devices instead: a folder in Hugging Face's layout. With a
    /// `parity.json` in it, its logits and greedy replies are held against those stored there.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Do to small studies, in a temporary folder, what kills, disks and clocks do to large ones,
    /// and compare what comes of it with a run that nothing disturbed.
    #[arg(long, conflicts_with = "checkpoint")]
    pub(crate) faults: bool,
    /// How often a runner is killed at a random moment. From 100 on, disks fail at every change
    /// instead of at some of them.
    #[arg(long, value_name = "N", default_value_t = 30, requires = "faults")]
    pub(crate) kills: u32,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Only show what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Most bytes of stored contents, such as `20GiB`. What takes the least time to make again for
    /// each byte goes first; records, metrics, scores, logs and dialogues stay in any case.
    #[arg(long, value_name = "SIZE", value_parser = budget::bytes)]
    pub(crate) budget: Option<u64>,
    /// Leave what was written in the last so many hours.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0, value_parser = not_negative)]
    pub(crate) older_than: f64,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..1e6).contains(&value) => Ok(value),
        _ => Err("it must be a number from 0".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct PackArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// File to write; the experiment's name with `.rkpack` if not given.
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Leave the weights of models out; records, scores, dialogues and logs stay in.
    #[arg(long)]
    pub(crate) without_models: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArguments {
    /// A file that `pack` wrote.
    pub(crate) pack: PathBuf,
    /// Folder for manifest and report, absent or empty; the experiment's name if not given.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// Only check every byte of it; take and write nothing.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The manifest, a TOML file.
    pub(crate) manifest: PathBuf,
    /// A model: a step, or step and output, such as `round2.evolve.model`; or any other output,
    /// such as `tuned.adapter`.
    pub(crate) model: String,
    /// Folder to write; must be absent or empty.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: PathBuf,
    /// Most GB of weights in one file; larger models get several and an index.
    #[arg(long, value_name = "GB", default_value_t = 5.0, value_parser = above_zero)]
    pub(crate) shard_size: f64,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A checkpoint, which is a folder in Hugging Face's layout such as `export` writes; or a
    /// manifest, with the step behind it.
    pub(crate) model: PathBuf,
    /// With a manifest: a step, or step and output, such as `last.round.model`.
    pub(crate) step: Option<String>,
    /// Address to listen on. Other machines reach it on another than this one; give a key then.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 takes a free one and says which.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// Environment variable with the key that clients must send; without it none is wanted.
    #[arg(long, value_name = "NAME")]
    pub(crate) key_env: Option<String>,
    /// What clients call the model; the folder's name or the step's if not given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Replies that are written side by side; fewer where memory is short.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) slots: u16,
    /// Replies that may wait for a slot. Who comes then hears 429 and when to come again.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) queue: u16,
    /// Most tokens of prompt and reply together; as many as the model takes if not given. Every
    /// slot keeps memory for so many.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) context: Option<u32>,
    /// How conversations are written down: `raw`, `plain`, `vicuna-v1.1`, or a file with a Jinja
    /// template; the model's own chat template if not given.
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("it must be a number above 0".to_owned()),
    }
}
