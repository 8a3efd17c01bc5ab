//! Tests that go through the program, on this machine only: they need no
//! device, no network, and leave nothing behind.

#![allow(clippy::unwrap_used)]

mod again;
mod annotator;
mod billing;
mod cache;
mod chat;
mod compare;
mod doctor;
mod errors;
mod evaluation;
mod faults;
mod generated;
mod house;
mod hub;
mod import;
mod interop;
mod isolation;
mod judge;
mod machine;
mod outlook;
mod pack;
mod paper;
mod plan;
mod preference;
mod responder;
mod resume;
mod retries;
mod room;
mod sandbox;
mod serve;
mod served;
mod space;
mod standing;
mod study;
mod training;
mod upkeep;
