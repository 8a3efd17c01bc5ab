//! scratch map
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
pub mod stages;
pub mod store;
