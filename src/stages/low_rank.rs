//! The table `lora` of a training: which layers get adapters, and how they
//! start. The arithmetic is the engine's.

use crate::base::artifact::Files;
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, spec};
use crate::engine::config::LlamaConfig;
use crate::engine::device::Device;
use crate::engine::lora::{Adapters, Lora, Target};
use crate::engine::peft;
use crate::stages::work::{OutputFolder, Work};

spec! {
    /// Low-rank adapters: the weights stay as they are, and small matrices A and B beside some of
    /// them learn. The defaults are those of Hugging Face's peft.
    #[check(sound)]
    pub struct LowRank {
        /// Rows of A, columns of B.
        rank: u64 = 8,
        /// The adapters' outputs are multiplied by `alpha / rank`.
        alpha: f64 = 8.0,
        /// Layers that get adapters, in every block.
        targets: Vec<Target> = vec![Target::Query, Target::Value],
        /// Chance of each input of an adapter to be left out in training.
        dropout: f64 = 0.0,
        /// Whether the factor is `alpha / sqrt(rank)`.
        rslora: bool = false,
        /// Adapters to go on from, in peft's format (`adapter_config.json`,
        /// `adapter_model.safetensors`): their rank, alpha, targets and factor hold, not those here.
        start: Option<Ref<Files>>,
    }
}

fn sound(lora: &LowRank, node: &Node, cx: &mut Reading) {
    if lora.rank == 0 {
        cx.error(&node.origin, "`rank` must be at least 1");
    }
    if lora.targets.is_empty() {
        cx.error(&node.origin, "`targets` names no layer");
    }
    if !(0.0..1.0).contains(&lora.dropout) {
        cx.error(&node.origin, "`dropout` is a chance: from 0 to below 1");
    }
}

impl LowRank {
    /// The adapters that a training of this model starts with.
    pub(super) fn adapters(
        &self,
        work: &Work,
        config: &LlamaConfig,
        device: &Device,
    ) -> Outcome<Adapters> {
        if let Some(start) = work.optional_input("lora.start") {
            let (settings, tensors) = (start.read(peft::SETTINGS)?, start.read(peft::TENSORS)?);
            let mut adapters = peft::load(&settings, &tensors, config, device)?;
            adapters.lora.dropout = self.dropout;
            return Ok(adapters);
        }
        let lora = Lora {
            rank: self.rank as usize,
            alpha: self.alpha,
            targets: Target::ALL.iter().copied().filter(|t| self.targets.contains(t)).collect(),
            dropout: self.dropout,
            rank_stabilized: self.rslora,
        };
        Ok(Adapters::fresh(lora, config, work.seed().derive("lora"), device))
    }
}

/// Writes adapters as peft does.
pub(super) fn write(out: OutputFolder, adapters: &Adapters, config: &LlamaConfig) -> Outcome<()> {
    let (settings, tensors) = peft::save(adapters, config)?;
    out.write_json(peft::SETTINGS, &settings)?;
    out.write(peft::TENSORS, &tensors)
}
