//! Whoever turns prompts into replies, and whoever writes feedback on them.

pub mod annotator;
pub mod api;
pub mod assessor;
pub mod judge;
pub mod local;
pub mod prompting;
pub mod reference;
pub mod voice;
