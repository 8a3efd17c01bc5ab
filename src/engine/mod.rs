//! The device: everything that touches a tensor. Nothing of burn leaves this
//! floor but the `Device` value; stages speak of models, sequences and replies.
//!
//! Read in this order: `config` and `model` (what a LLaMA is), `ops` (what it
//! is made of), `batch`, `gradient`, `optimizer`, `train` (how it learns),
//! `lora` (how little of it may learn), `estimate` (what it takes), `sample`, `batcher`, `generate`
//! (how it speaks), `score` (what it thinks of a text), `preference`, `reward`, `ppo` (how it learns from what is thought of its replies),
//! `weights`, `peft` (how it is kept, and how it comes from others and goes to
//! them), `selftest` (what has to hold on every device).
//!
//! Numbers are f32: weights that learn, activations, gradients, moments, files
//! we write. Matrix products may round to bf16 (`ops::Precision`), and a model
//! that only speaks keeps its matrices so; every operation refuses what it does
//! not expect (`ops::product`). Other formats end where a file is read.

pub mod batch;
pub mod batcher;
pub mod config;
pub mod device;
pub mod estimate;
pub mod generate;
pub mod gradient;
pub mod lora;
pub mod model;
pub mod ops;
pub mod optimizer;
pub mod peft;
pub mod ppo;
pub mod preference;
pub mod reward;
pub mod sample;
pub mod score;
pub mod selftest;
pub mod tokenizer;
pub mod train;
pub mod weights;

/// Runs `work` with at most `threads` threads for its matrix products. No
/// result depends on the number.
pub fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    match rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod precision_tests;
#[cfg(test)]
mod preference_tests;
#[cfg(test)]
mod tests;
