//! Devices: which there are, which one to use, and why not another. The only
//! place that knows which backends this build has.

use crate::base::failure::{Failure, Outcome};
pub use burn::tensor::Device;
use std::str::FromStr;

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best that works.
    Auto,
    /// The processor.
    Cpu,
    /// A graphics card through wgpu.
    Wgpu,
    /// A CUDA card.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let unknown = || format!("`{text}` is no device; there are `auto`, `cpu`, `wgpu`, `cuda`, `cuda:<n>`");
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "wgpu" => Ok(DeviceChoice::Wgpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                index.parse().map(DeviceChoice::Cuda).map_err(|_| unknown())
            }
        }
    }
}

/// A device that works.
#[derive(Debug)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// Its name for people.
    pub name: String,
    /// Whether it is the processor.
    pub is_cpu: bool,
    /// Devices that were passed over, and why.
    pub rejected: Vec<(String, String)>,
}

impl Opened {
    /// The class of arithmetic: two devices of one class give the same bits.
    pub fn numerics(&self) -> String {
        if !self.is_cpu {
            return format!("{} f32", self.name);
        }
        #[cfg(target_arch = "x86_64")]
        let fused = std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let fused = true;
        let sums = if fused { "fused" } else { "plain" };
        format!("flex f32 {} {sums}", std::env::consts::ARCH)
    }
}

/// Opens what was asked for.
///
/// # Errors
/// `Environment` when it is not there.
pub fn open(choice: &DeviceChoice) -> Outcome<Opened> {
    match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Opened {
            device: Device::flex(),
            name: "cpu (flex)".into(),
            is_cpu: true,
            rejected: Vec::new(),
        }),
        other => Err(Failure::environment(format!("this build has no {other:?}"))),
    }
}
