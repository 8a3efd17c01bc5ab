//! The verbs: what a step can do. One kind is one file; a new one is that file
//! and two lines here.

pub mod foresight;
pub mod kind;
pub mod work;

mod fetching;
mod fitting;
mod formats;
mod low_rank;
mod speaking;
mod tallying;
mod watching;

pub mod architecture;
pub mod collect;
pub mod command;
pub mod evaluate;
pub mod examples;
pub mod fetch_dataset;
pub mod fetch_replies;
pub mod filter;
pub mod generate;
pub mod import;
pub mod judge;
pub mod leak_check;
pub mod ppo;
pub mod self_feedback;
pub mod self_instruct;
pub mod self_refine;
pub mod split;
pub mod tokenizer;
pub mod train;
pub mod train_reward;
pub mod word_problems;

use crate::base::failure::Outcome;
use crate::engine::ops::Precision;
use crate::inference::local::open_device;
use crate::manifest::ResourceInfo;
use kind::Kind;

/// Every kind there is, in the order of the documentation.
pub static KINDS: &[&Kind] = &[
    &word_problems::KIND,
    &fetch_dataset::KIND,
    &fetch_replies::KIND,
    &split::KIND,
    &leak_check::KIND,
    &examples::KIND,
    &tokenizer::KIND,
    &import::KIND,
    &train::KIND,
    &train_reward::KIND,
    &ppo::KIND,
    &collect::KIND,
    &self_instruct::KIND,
    &generate::KIND,
    &self_feedback::KIND,
    &self_refine::KIND,
    &filter::KIND,
    &evaluate::KIND,
    &judge::KIND,
    &command::KIND,
];

/// Every kind of shared table.
pub static RESOURCES: &[ResourceInfo] = &[
    ResourceInfo::of::<architecture::Architecture>(),
    ResourceInfo::of::<crate::record::protocol::Protocol>(),
    ResourceInfo::of::<crate::inference::annotator::AnnotatorSpec>(),
    ResourceInfo::of::<crate::inference::api::Api>(),
    ResourceInfo::of::<crate::inference::judge::JudgeSpec>(),
    ResourceInfo::of::<crate::record::rubric::Rubric>(),
];

/// The class of arithmetic that results depend on, for steps that need the
/// device: part of their identity.
///
/// # Errors
/// When the device is not there.
pub fn numerics(device: &str) -> Outcome<String> {
    Ok(open_device(device)?.numerics())
}

/// The name of the device that a choice comes to, and which others were passed
/// over and why.
///
/// # Errors
/// When the device is not there.
pub fn device_name(device: &str) -> Outcome<String> {
    let opened = open_device(device)?;
    let passed = opened.rejected.iter().map(|(name, why)| format!("; not {name}: {why}"));
    let rounded = match opened.precision {
        Precision::F32 => String::new(),
        precision => format!(", matrix products in {precision}"),
    };
    Ok(format!("{}{rounded}{}", opened.name, passed.collect::<String>()))
}
