//! The verbs: what a step can do. One kind is one file; a new one is that file
//! and two lines here.

pub mod kind;
pub mod work;

mod speaking;
mod tallying;

pub mod architecture;
pub mod collect;
pub mod command;
pub mod evaluate;
pub mod examples;
pub mod filter;
pub mod generate;
pub mod self_feedback;
pub mod self_refine;
pub mod tokenizer;
pub mod train;
pub mod word_problems;

use crate::manifest::ResourceInfo;
use kind::Kind;

/// Every kind there is, in the order of the documentation.
pub static KINDS: &[&Kind] = &[
    &word_problems::KIND,
    &examples::KIND,
    &tokenizer::KIND,
    &train::KIND,
    &collect::KIND,
    &generate::KIND,
    &self_feedback::KIND,
    &self_refine::KIND,
    &filter::KIND,
    &evaluate::KIND,
    &command::KIND,
];

/// Every kind of shared table.
pub static RESOURCES: &[ResourceInfo] = &[
    ResourceInfo::of::<architecture::Architecture>(),
    ResourceInfo::of::<crate::record::protocol::Protocol>(),
    ResourceInfo::of::<crate::inference::annotator::AnnotatorSpec>(),
];

/// The class of arithmetic that results depend on, for steps that need the
/// device: part of their identity.
///
/// # Errors
/// When the device is not there.
pub fn numerics(device: &str) -> crate::base::failure::Outcome<String> {
    Ok(crate::inference::local::open_device(device)?.numerics())
}
