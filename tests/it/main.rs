//! Tests that go through the program, on this machine only: they need no
//! device, no network, and leave nothing behind.

#![allow(clippy::unwrap_used)]

mod annotator;
mod cache;
mod chat;
mod compare;
mod doctor;
mod errors;
mod generated;
mod house;
mod hub;
mod import;
mod interop;
mod paper;
mod plan;
mod resume;
mod space;
mod standing;
mod study;
mod training;
mod upkeep;
