//! CUDA cards, through NVRTC: driver, card, compiler and headers are looked for
//! in this order. All libraries are opened at run time, so a program with this
//! file in it starts on a machine without CUDA.

use super::{Found, check::guarded, checked};

/// The oldest NVRTC that the kernels compile with.
const OLDEST_NVRTC: (i32, i32) = (12, 8);

/// How many cards the driver sees.
pub(super) fn count() -> usize {
    cards().unwrap_or(0)
}

pub(super) fn find(index: usize) -> Found {
    let cards = cards()?;
    if index >= cards {
        return Err(format!("the driver sees {cards} cards, numbered from 0"));
    }
    let compiler = compiler()?;
    headers()?;
    let (device, name) = checked(cubecl::Device::Cuda(cubecl::device::CudaDevice::new(index)))
        .map_err(|reason| format!("{reason} (NVRTC {}.{})", compiler.0, compiler.1))?;
    Ok((device, format!("cuda:{index} {name}")))
}

/// Bytes that are free on a card.
pub(super) fn free_memory(index: usize) -> Option<u64> {
    let asked = guarded(|| {
        let card = cudarc::driver::CudaContext::new(index).map_err(|error| error.to_string())?;
        card.mem_get_info().map_err(|error| error.to_string())
    });
    asked.ok().map(|(free, _)| free as u64)
}

fn cards() -> Result<usize, String> {
    #[expect(
        unsafe_code,
        reason = "asks the loader for the driver's library, which runs its start-up code"
    )]
    // SAFETY: the library is NVIDIA's driver, made to be loaded by any program.
    let driver = unsafe { cudarc::driver::sys::is_culib_present() };
    if !driver {
        return Err("no NVIDIA driver (`libcuda` cannot be loaded)".to_string());
    }
    let count =
        guarded(|| cudarc::driver::CudaContext::device_count().map_err(|error| error.to_string()))
            .map_err(|reason| format!("the NVIDIA driver does not start: {reason}"))?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("the NVIDIA driver sees no card".to_string()),
    }
}

fn compiler() -> Result<(i32, i32), String> {
    let (major, minor) = OLDEST_NVRTC;
    let missing = format!("`libnvrtc` of CUDA {major}.{minor} or newer");
    #[expect(
        unsafe_code,
        reason = "asks the loader for the compiler's library, which runs its start-up code"
    )]
    // SAFETY: the library is NVIDIA's compiler, made to be loaded by any program.
    let present = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if !present {
        return Err(format!("{missing} cannot be loaded"));
    }
    let version = guarded(|| {
        let (mut major, mut minor) = (0, 0);
        #[expect(unsafe_code, reason = "NVRTC says its version only through a C function")]
        // SAFETY: both pointers are to integers that outlive the call, which only writes them.
        let answer = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
        answer.result().map_err(|error| format!("{error:?}"))?;
        Ok((major, minor))
    })
    .map_err(|reason| format!("`libnvrtc` does not start: {reason}"))?;
    if version < OLDEST_NVRTC {
        return Err(format!("{missing} is needed, and this one is {}.{}", version.0, version.1));
    }
    Ok(version)
}

fn headers() -> Result<(), String> {
    let toolkit = cubecl::cuda::install::cuda_path()
        .ok_or("no CUDA headers (install a CUDA toolkit, or point `CUDA_PATH` at one)")?;
    let header = toolkit.join("include").join("cuda_bf16.h");
    match header.is_file() {
        true => Ok(()),
        false => Err(format!("no CUDA headers (`{}` is missing)", header.display())),
    }
}

#[cfg(test)]
mod tests {
    use cubecl::cuda::compiler::CudaBackend;

    /// The other way leads through `patches/cubecl-llvm`, which compiles nothing.
    #[test]
    fn kernels_go_through_nvrtc() {
        assert_eq!(format!("{:?}", CudaBackend::default()), "Cpp");
    }
}
