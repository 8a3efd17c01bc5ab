//! The machine: files, the clock, processes, signals. Everything above asks
//! here, so that what the program does to a computer is in one folder.
//!
//! Knows nothing of experiments, stores or models.

pub mod archive;
pub mod chat;
pub mod clock;
pub mod disk;
pub mod fs;
pub mod http;
pub mod hub;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod patience;
pub mod process;
pub mod sandbox;
pub mod server;
pub mod signal;
pub mod tape;
