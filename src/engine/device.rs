//! Devices: which there are, which one to use, and why not another. The only
//! place that knows which backends this build has.
//!
//! Every device is looked for step by step before it is opened, because the
//! libraries below panic on a machine that lacks them; then it has to compute
//! one small matrix product. A device that nobody asked for is not touched. It
//! knows nothing of models, and of a device no more than its name, what its
//! products may be rounded to, and how much memory is free.

mod check;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::{fmt, str::FromStr, time::Instant};

use super::ops::{self, Precision};
use crate::base::failure::{Failure, Outcome};
use crate::host::memory;

use burn::tensor::Tensor;

pub use burn::tensor::Device;
pub(super) use check::guarded;
pub use check::within_memory;

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best that works.
    Auto,
    /// The processor.
    Cpu,
    /// A graphics card through wgpu; a software adapter where there is no card.
    Wgpu,
    /// The CUDA card of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => Some(DeviceChoice::Auto),
            "cpu" => Some(DeviceChoice::Cpu),
            "wgpu" => Some(DeviceChoice::Wgpu),
            "cuda" => Some(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .map(DeviceChoice::Cuda),
        }
        .ok_or_else(|| {
            format!("`{text}` is no device; there are `auto`, `cpu`, `wgpu`, `cuda`, `cuda:<n>`")
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Wgpu => f.write_str("wgpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A device and what its matrix products are to be rounded to: `cuda:0`, or
/// `cuda:0/bf16` where that was asked for too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The device.
    pub choice: DeviceChoice,
    /// The format; without one it is the device's own.
    pub precision: Option<Precision>,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Asked, String> {
        let (choice, precision) = match text.split_once('/') {
            Some((choice, precision)) => (choice, Some(precision.parse()?)),
            None => (text, None),
        };
        Ok(Asked { choice: choice.parse()?, precision })
    }
}

/// Edition of the engine's arithmetic: another number means that results may
/// differ in their last bits, so that steps that depend on them are made again.
const ARITHMETIC: u32 = 2;

/// A device that works.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// Its name for people: `cpu (flex)`, `cuda:0 NVIDIA H200`.
    pub name: String,
    /// Whether it is the processor.
    pub is_cpu: bool,
    /// What matrix products are rounded to on it.
    pub precision: Precision,
    /// Devices that were passed over, and why.
    pub rejected: Vec<(String, String)>,
}

impl Opened {
    /// The class of arithmetic: two devices of one class give the same bits.
    pub fn numerics(&self) -> String {
        let precision = self.precision;
        if !self.is_cpu {
            return format!("{} {precision} {ARITHMETIC}", self.name);
        }
        #[cfg(target_arch = "x86_64")]
        let fused = std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let fused = true;
        let sums = if fused { "fused" } else { "plain" };
        format!("flex {precision} {} {sums} {ARITHMETIC}", std::env::consts::ARCH)
    }

    /// Whether it can store, convert, add and multiply numbers of this format.
    pub fn can(&self, precision: Precision) -> bool {
        let asked = check::guarded(|| Ok(self.device.supports_dtype(precision.dtype())));
        asked.unwrap_or(false)
    }

    /// The same with products rounded to what was asked for; without that to
    /// bf16 on a CUDA card that has it, and else to nothing.
    ///
    /// # Errors
    /// `Environment` when the device cannot compute in it.
    pub fn computing_in(self, asked: Option<Precision>) -> Outcome<Opened> {
        let precision = match asked {
            Some(precision) => precision,
            None if self.name.starts_with("cuda") && self.can(Precision::Bf16) => Precision::Bf16,
            None => Precision::F32,
        };
        if !self.can(precision) {
            return Err(Failure::environment(format!(
                "device `{}` cannot compute in {precision}",
                self.name
            ))
            .hint("`precision = \"f32\"` works on every device; `\"auto\"` takes bf16 where it is fast"));
        }
        Ok(Opened { precision, ..self })
    }

    /// Whether the engine's fused operations run on it.
    pub fn is_fused(&self) -> bool {
        self.is_cpu && self.precision == Precision::F32
    }

    /// Floating-point operations a second of its matrix products, measured over a
    /// few of them.
    pub fn speed(&self) -> f64 {
        const SIZE: usize = 384;
        const TRIES: usize = 3;
        let ones = || Tensor::<2>::ones([SIZE, SIZE], &self.device);
        let (a, b) = (ones(), ones());
        let fastest = (0..TRIES).map(|_| {
            let start = Instant::now();
            // Reading a number of it waits for the whole.
            let product = ops::linear(a.clone(), b.clone(), self.precision);
            let _ = product.narrow(0, 0, 1).narrow(1, 0, 1).into_scalar::<f32>();
            start.elapsed().as_secs_f64()
        });
        2.0 * (SIZE as f64).powi(3) / fastest.fold(f64::INFINITY, f64::min).max(1e-9)
    }

    /// Bytes of memory that models may still take, where that can be found out.
    pub fn free_memory(&self) -> Option<u64> {
        if self.is_cpu {
            return memory::available();
        }
        let card = self.name.strip_prefix("cuda:")?.split(' ').next()?;
        cuda::free_memory(card.parse().ok()?)
    }
}

/// Where something computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the processor.
    Processor,
    /// On a graphics card; with its number where that is known.
    Card(Option<usize>),
}

/// Where a class of arithmetic computes, as [`Opened::numerics`] words it.
pub fn place_of(class: &str) -> Place {
    if class.starts_with("flex ") {
        return Place::Processor;
    }
    let number = class.strip_prefix("cuda:").and_then(|rest| rest.split(' ').next());
    Place::Card(number.and_then(|number| number.parse().ok()))
}

/// What was found out about one device.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What to ask for to get it: `cuda:1`.
    pub choice: DeviceChoice,
    /// Its name, or why it cannot be used.
    pub verdict: Result<String, String>,
}

/// A device and its name, or why it cannot be used.
type Found = Result<(Device, String), String>;

/// Opens what was asked for. `auto` tries CUDA, then a graphics card through
/// wgpu, then the processor, and says in `rejected` why it went on.
///
/// # Errors
/// `Environment` when the device is not there or miscalculates.
pub fn open(choice: &DeviceChoice) -> Outcome<Opened> {
    if *choice == DeviceChoice::Auto {
        return Ok(automatic([
            ("cuda", &|| cuda::find(0)),
            ("wgpu", &|| wgpu::find(Software::Refused)),
        ]));
    }
    match find(choice) {
        Ok((device, name)) => {
            let is_cpu = *choice == DeviceChoice::Cpu;
            let precision = Precision::F32;
            Ok(Opened { device, name, is_cpu, precision, rejected: Vec::new() })
        }
        Err(reason) => Err(Failure::environment(format!("device `{choice}`: {reason}"))
            .hint("`auto` takes the best device that works, and `cpu` works everywhere")),
    }
}

/// Looks for every device of every kind, the one `auto` would prefer first.
/// Opens each of them, which takes seconds where there are cards.
pub fn probe_all() -> Vec<Probe> {
    (0..cuda::count().max(1))
        .map(DeviceChoice::Cuda)
        .chain([DeviceChoice::Wgpu, DeviceChoice::Cpu])
        .map(|choice| {
            let verdict = find(&choice).map(|(_, name)| name);
            Probe { choice, verdict }
        })
        .collect()
}

/// The first of `better` that is found, else the processor.
fn automatic(better: [(&str, &dyn Fn() -> Found); 2]) -> Opened {
    let (mut rejected, precision) = (Vec::new(), Precision::F32);
    for (what, look) in better {
        match look() {
            Ok((device, name)) => {
                return Opened { device, name, is_cpu: false, precision, rejected };
            }
            Err(reason) => rejected.push((what.to_string(), reason)),
        }
    }
    let (device, name) = processor();
    Opened { device, name, is_cpu: true, precision, rejected }
}

fn find(choice: &DeviceChoice) -> Found {
    match choice {
        DeviceChoice::Auto => {
            open(choice).map(|opened| (opened.device, opened.name)).map_err(|failure| failure.what)
        }
        DeviceChoice::Cpu => Ok(processor()),
        DeviceChoice::Wgpu => wgpu::find(Software::Accepted),
        DeviceChoice::Cuda(index) => cuda::find(*index),
    }
}

fn processor() -> (Device, String) {
    (Device::flex(), "cpu (flex)".to_string())
}

/// Whether a software adapter will do where a graphics card is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Software {
    Accepted,
    Refused,
}

/// The device, once it has computed something, and what its maker calls it.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn checked(device: cubecl::Device) -> Found {
    let device = Device::new(device);
    let name = check::guarded(|| Ok(device.identity().map(|identity| identity.name)))
        .map_err(|reason| format!("it cannot be opened: {reason}"))?;
    check::calculates(&device)?;
    Ok((device, name.unwrap_or_else(|| "unnamed".to_string())))
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    //! What a build without CUDA answers.

    pub(super) fn count() -> usize {
        0
    }

    pub(super) fn find(_index: usize) -> super::Found {
        Err("this build has no cuda (build with `-F cuda`)".to_string())
    }

    pub(super) fn free_memory(_index: usize) -> Option<u64> {
        None
    }
}

#[cfg(not(feature = "wgpu"))]
mod wgpu {
    //! What a build without wgpu answers.

    pub(super) fn find(_software: super::Software) -> super::Found {
        Err("this build has no wgpu (build with `-F wgpu`)".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for text in ["auto", "cpu", "wgpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn unknown_choice_lists_the_known_ones() {
        for text in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cpu:0"] {
            let message = text.parse::<DeviceChoice>().unwrap_err();
            assert!(message.contains("`auto`, `cpu`, `wgpu`, `cuda`, `cuda:<n>`"), "{message}");
        }
    }

    #[test]
    fn a_precision_goes_with_a_device() {
        let asked: Asked = "cuda:1/bf16".parse().unwrap();
        assert_eq!(
            asked,
            Asked { choice: DeviceChoice::Cuda(1), precision: Some(Precision::Bf16) }
        );
        assert_eq!("cpu".parse::<Asked>().unwrap().precision, None);
        for text in ["cpu/", "cpu/f16", "gpu/f32", "cpu/bf16/f32"] {
            assert!(text.parse::<Asked>().is_err(), "{text}");
        }
        let cpu = || open(&DeviceChoice::Cpu).unwrap();
        let class = |asked| cpu().computing_in(asked).unwrap().numerics();
        assert_eq!(class(None), cpu().numerics());
        assert_eq!(class(Some(Precision::Bf16)), cpu().numerics().replace("f32", "bf16"));
        assert!(cpu().free_memory().is_none_or(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn cpu_opens_and_calculates() {
        let opened = open(&DeviceChoice::Cpu).unwrap();
        assert!(opened.is_cpu && opened.rejected.is_empty());
        assert_eq!(opened.name, "cpu (flex)");
        assert_eq!(check::calculates(&opened.device), Ok(()));
        assert_eq!(place_of(&opened.numerics()), Place::Processor);
        assert_eq!(place_of("cuda:12 NVIDIA H200 bf16"), Place::Card(Some(12)));
        assert_eq!(place_of("wgpu llvmpipe f32"), Place::Card(None));
    }

    #[test]
    fn auto_opens_something_and_accounts_for_the_rest() {
        let opened = open(&DeviceChoice::Auto).unwrap();
        assert_eq!(check::calculates(&opened.device), Ok(()));
        assert!(!opened.name.contains("(software)"), "{}", opened.name);
        if opened.is_cpu {
            let passed_over: Vec<&str> =
                opened.rejected.iter().map(|(what, _)| what.as_str()).collect();
            assert_eq!(passed_over, ["cuda", "wgpu"]);
        }
    }

    #[test]
    fn auto_prefers_the_first_and_stops_there() {
        let found = || Ok((Device::flex(), "a card".to_string()));
        let opened = automatic([("first", &found), ("second", &|| panic!("touched the second"))]);
        assert_eq!((opened.name.as_str(), opened.is_cpu), ("a card", false));
        let opened = automatic([("first", &|| Err("absent".into())), ("second", &found)]);
        assert_eq!(opened.rejected, [("first".to_string(), "absent".to_string())]);
        assert!(!opened.is_cpu);
    }

    #[test]
    fn absent_card_is_an_environment_failure_with_a_hint() {
        let failure = open(&DeviceChoice::Cuda(4096)).unwrap_err();
        assert_eq!(failure.class, crate::base::failure::Class::Environment);
        assert!(failure.what.starts_with("device `cuda:4096`: "), "{}", failure.what);
        assert_eq!(failure.hints.len(), 1);
    }

    #[test]
    fn every_probe_has_a_name_or_a_reason() {
        let probes = probe_all();
        assert_eq!(probes.last().unwrap().verdict, Ok("cpu (flex)".to_string()));
        assert!(probes.iter().any(|probe| probe.choice == DeviceChoice::Wgpu));
        for probe in probes {
            let text = probe.verdict.unwrap_or_else(|reason| reason);
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        }
    }
}
