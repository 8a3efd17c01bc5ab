//! Graphics cards through wgpu, which reaches them over Vulkan, Metal, DirectX or
//! OpenGL; and software adapters, which pretend to be one.

use super::{Found, Software, check::guarded, checked};
use cubecl::device::WgpuDeviceKind;

/// Adapters that stand for hardware, best first.
const CARDS: [WgpuDeviceKind; 4] = [
    WgpuDeviceKind::DiscreteGpu(0),
    WgpuDeviceKind::IntegratedGpu(0),
    WgpuDeviceKind::VirtualGpu(0),
    WgpuDeviceKind::Other(0),
];

pub(super) fn find(software: Software) -> Found {
    let there = |kind: WgpuDeviceKind| {
        guarded(|| cubecl::Device::wgpu(kind).map_err(|error| error.to_string()))
    };
    if let Some(card) = CARDS.into_iter().find_map(|kind| there(kind).ok()) {
        let (device, name) = checked(card)?;
        return Ok((device, format!("wgpu {name}")));
    }
    let Ok(adapter) = there(WgpuDeviceKind::Cpu) else {
        return Err("no graphics adapter (Vulkan, Metal, DirectX or OpenGL)".to_string());
    };
    if software == Software::Refused {
        return Err("only a software adapter, which computes on the processor".to_string());
    }
    let (device, name) = checked(adapter)?;
    Ok((device, format!("wgpu {name} (software)")))
}
