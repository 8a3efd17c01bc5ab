//! **rekindle**: one TOML manifest describes a whole self-evolution study of a
//! language model, one command runs it, and every number it prints can be
//! followed back to what made it.
//!
//! # The house
//! Imports go down only; floors on one line do not know each other. What is
//! above the line is text and numbers in, text and numbers out: no files, no
//! clock, no network, no device.
//!
//! ```text
//! base                  words for everyone: digests, seeds, diagnostics, typed parameters (spec!)
//! record                rows that flow along the edges; reading answers; statistics
//! manifest              TOML -> arms of declared steps, every mistake told at its place
//! plan                  steps -> a graph; identity of a step; what is fresh, what is not and why
//! report                results -> Markdown, JSON and SVG
//! ───────────────────── the pure line ─────────────────────────────────────────────────────────────
//! host                  what the operating system gives: files, locks, signals, processes, HTTP
//! store   | engine      results by content on disk | models, training and generation on a device
//! inference             whoever turns prompts into replies, and whoever writes feedback on them
//! stages  | serve       the verbs: one kind of step is one file | a model behind OpenAI's protocol
//! runner                what is ready, what is stored, what must be done, and failing well
//! cli                   arguments, progress, exit codes
//! ```
//!
//! # The main path (`cli::run`)
//! read the manifest -> expand rounds and sweep -> resolve each step's table to
//! a typed stage -> plan the graph -> judge what is stored -> drive what is not
//! -> report. `plan` is the same path stopped before the driving, so what is
//! shown is what is run.
//!
//! # What always holds
//! * A step's identity is one canonical text: kind, version, parameters that
//!   differ from their defaults, the digests of its inputs' contents, its seed,
//!   the class of arithmetic. Its key is the digest of that text; `why` is a
//!   comparison of two such texts. Paths, times, threads and names of arms are
//!   never in it.
//! * A seed comes from the manifest's seed, the kind and the round, never from
//!   a name; so arms of a sweep share what is equal in them.
//! * Nothing in the store is modified in place; what is visible is whole.
//!   Stopping in any way loses at most the record or the checkpoint interval
//!   under way, and the same command goes on to the same bits.
//! * On the CPU, in f32, no result depends on the number of threads, on the batch
//!   size of generation, or on whether the run was interrupted.
//! * Gold answers decide nothing but what a report says, save for the annotator
//!   in `collect`, which stands where GPT-4 stands in the paper.
//! * burn and tokenizers are named in `engine` only, minijinja in `record`, petgraph in `plan`, toml in `manifest`,
//!   ureq, hyper, tokio, landlock and tar in `host`, clap and indicatif in `cli`.
//!
//! # Files
//! `.rekindle/` (or `--store`) is the store: safe to delete, expensive to lose.
//! `results/<name>/` is what a study found: small, made to be committed, the
//! same bytes whenever the same manifest is run.
//!
//! # Words
//! *manifest*: what a person asked for. *stage*: a verb of it, of a *kind*.
//! *step*: a stage in one round and one arm. *arm*: one choice on every axis of
//! a sweep. *artifact*: what flows along an edge. *identity*, *key*: above.
//! *action record*: what is kept of a finished step. `p`, `r`, `f`, `r̂`, `D_meta`,
//! `D_QA`, `D_evol`: the paper's prompt, reply, feedback, refined reply, and sets.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod base;
pub mod cli;
pub mod engine;
pub mod host;
pub mod inference;
pub mod manifest;
pub mod plan;
pub mod record;
pub mod report;
pub mod runner;
pub mod serve;
pub mod stages;
pub mod store;
