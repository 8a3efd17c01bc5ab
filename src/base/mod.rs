//! The ground floor: words that every other floor uses. Knows nothing of
//! experiments, models or machines; everything here is text and numbers in,
//! text and numbers out.

pub mod artifact;
pub mod diag;
pub mod encode;
pub mod failure;
pub mod field;
pub mod hash;
pub mod node;
pub mod quantity;
pub mod reading;
pub mod reference;
pub mod seed;
pub mod spec;
pub mod text;
