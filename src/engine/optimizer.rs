//! AdamW over a list of parameters: schedule, global-norm clipping, moments.
//!
//! Keyed by the parameters' order; knows nothing of models, losses or data.

use super::ops::{self, AdamStep, Moments};
use crate::base::spec::choice;
use burn::tensor::Tensor;

choice! {
    /// How the learning rate goes down after the warm-up.
    pub enum Schedule {
        /// Half a cosine to the floor; with `floor = 0` that of Hugging Face's trainer.
        Cosine = "cosine",
        /// A straight line to the floor; with `floor = 0` that of Hugging Face's trainer.
        Linear = "linear",
        /// It stays at its peak.
        Constant = "constant",
    }
}

/// Settings of the optimizer and its schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Peak learning rate.
    pub rate: f64,
    /// Share of the steps over which the rate rises to its peak.
    pub warmup: f64,
    /// The way down.
    pub schedule: Schedule,
    /// Share of the peak that it ends at.
    pub floor: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay on matrices.
    pub decay: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it.
    pub clip: f64,
}

impl AdamW {
    /// Learning rate of optimizer step `step` (from 0) of `total`: linear
    /// warm-up that starts at 0, then the schedule's way to the floor.
    ///
    /// # Source
    /// Hugging Face transformers, `get_cosine_schedule_with_warmup`,
    /// `get_linear_schedule_with_warmup` and `get_constant_schedule_with_warmup`,
    /// which are these with a floor of 0; the floor is ours.
    pub fn rate_at(&self, step: u64, total: u64) -> f64 {
        let warmup = (total as f64 * self.warmup).ceil();
        let step = step as f64;
        if step < warmup {
            return self.rate * step / warmup;
        }
        let progress = (step - warmup) / (total as f64 - warmup).max(1.0);
        let left = match self.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Schedule::Linear => 1.0 - progress,
            Schedule::Constant => return self.rate,
        };
        self.rate * (self.floor + (1.0 - self.floor) * left)
    }
}

/// Weights and moments in the making.
#[derive(Debug)]
pub struct Optimizer {
    settings: AdamW,
    /// Weights and moments.
    parameters: Vec<Moments>,
    /// Whether each one decays.
    decays: Vec<bool>,
    /// Steps taken.
    step: u64,
}

impl Optimizer {
    /// A fresh optimizer over these weights; `decays` says which of them decay.
    pub fn new(settings: AdamW, decays: Vec<bool>, weights: Vec<Tensor<2>>) -> Optimizer {
        let parameters = weights
            .into_iter()
            .map(|w| Moments { m: w.zeros_like(), v: w.zeros_like(), w })
            .collect();
        Optimizer::resumed(settings, decays, parameters, 0)
    }

    /// An optimizer as it was after `step` steps.
    pub fn resumed(
        settings: AdamW,
        decays: Vec<bool>,
        parameters: Vec<Moments>,
        step: u64,
    ) -> Optimizer {
        Optimizer { settings, parameters, decays, step }
    }

    /// Steps taken.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Weights and moments.
    pub fn parameters(&self) -> &[Moments] {
        &self.parameters
    }

    /// The weights.
    pub fn weights(&self) -> Vec<Tensor<2>> {
        self.parameters.iter().map(|p| p.w.clone()).collect()
    }

    /// Takes one of `total` steps; `norm` is the gradients' [`global_norm`].
    pub fn take_step(&mut self, gradients: Vec<Tensor<2>>, norm: f64, total: u64) {
        let clip = self.settings.clip;
        // transformers' and torch's rule: clip / (norm + 1e-6), at most 1.
        let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let rate = self.settings.rate_at(self.step, total);
        self.step += 1;
        let correction = |beta: f64| (1.0 - beta.powf(self.step as f64)) as f32;
        let step = AdamStep {
            rate: rate as f32,
            beta1: self.settings.beta1 as f32,
            beta2: self.settings.beta2 as f32,
            fresh1: (1.0 - self.settings.beta1) as f32,
            fresh2: (1.0 - self.settings.beta2) as f32,
            eps: self.settings.eps as f32,
            decay: 0.0,
            correction1: correction(self.settings.beta1),
            correction2: correction(self.settings.beta2),
            scale: scale as f32,
        };
        let parameters = std::mem::take(&mut self.parameters);
        self.parameters = parameters
            .into_iter()
            .zip(gradients)
            .zip(&self.decays)
            .map(|((p, g), &decays)| {
                let decay = if decays { self.settings.decay as f32 } else { 0.0 };
                ops::adamw(p, g, &AdamStep { decay, ..step })
            })
            .collect();
    }
}

/// Root of the sum of squares over all gradients.
pub fn global_norm(gradients: &[Tensor<2>]) -> f64 {
    gradients.iter().map(ops::sum_of_squares).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_starts_at_zero_peaks_and_ends_at_the_floor() {
        let adam = AdamW {
            rate: 1.0,
            warmup: 0.1,
            schedule: Schedule::Cosine,
            floor: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            decay: 0.0,
            clip: 1.0,
        };
        assert_eq!(adam.rate_at(0, 100), 0.0);
        assert_eq!(adam.rate_at(5, 100), 0.5);
        assert_eq!(adam.rate_at(10, 100), 1.0);
        assert!((adam.rate_at(55, 100) - 0.525).abs() < 1e-12);
        assert!((adam.rate_at(100, 100) - 0.05).abs() < 1e-12);
    }
}
