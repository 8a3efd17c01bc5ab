//! A stand-in for `cubecl-llvm` 0.11.3 that holds no LLVM.
//!
//! `cubecl-cuda` compiles two code generators in and picks one: CUDA C++ handed
//! to NVRTC (its feature `cpp`, which `rekindle` switches on as
//! `cubecl/cuda-cpp`), or PTX through LLVM. It depends on the second one in any
//! case, and the build script of the real crate downloads an LLVM release, so a
//! build without network fails. We always want NVRTC: it is the generator with
//! TMA, clusters, asynchronous copies and bf16 atomics.
//!
//! So `[patch.crates-io]` puts this crate in the place of the real one. It
//! declares the names that `cubecl-cuda` 0.11.3 mentions, in the shapes it uses
//! them, and nothing behind them. Where the LLVM generator would run, it
//! answers with an error that names the missing feature. It is written from
//! the use sites in `cubecl-cuda` and knows nothing of how the real crate
//! works. When cubecl is upgraded, read those use sites again:
//! `compiler.rs`, `runtime.rs` and `compute/context.rs` of `cubecl-cuda`.

#![warn(missing_docs)]

pub mod nvptx;
pub mod shared;

use std::{ffi::c_char, fmt};

use cubecl_core::{ir::nvidia::SmArch, prelude::KernelDefinition};
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::{
    compiler::{CompilationError, Compiler},
    kernel::BufferIOAttr,
};

use nvptx::ptx_version::PtxVersion;

/// Why this generator never makes a kernel.
const REASON: &str = "this program was built without the LLVM code generator; build it with the \
                      feature `cuda-cpp` of `cubecl`, so that kernels go through NVRTC";

/// The machine LLVM would generate code for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The processor this program runs on.
    #[default]
    Host,
    /// An NVIDIA GPU.
    Nvptx,
}

/// The LLVM code generator: here, one that refuses every kernel.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// The machine to generate for.
    pub target: LlvmTarget,
}

/// What the generator would be told about the device.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Architecture of a processor, by name.
    pub arch: Option<String>,
    /// Architecture of an NVIDIA GPU.
    pub sm_arch: Option<SmArch>,
    /// Newest PTX the driver loads.
    pub ptx_version: Option<PtxVersion>,
    /// Whether launch parameters are passed as grid constants.
    pub grid_constants: bool,
    /// Alignment of buffers in bytes, on a processor.
    pub cpu_buffer_alignment: Option<u32>,
}

/// What the generator would hand back; no value of this type is ever made.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// A module for an NVIDIA GPU.
    NvptxCode(NvptxModule),
    /// A function compiled for this processor.
    Jit,
}

/// A module for an NVIDIA GPU.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, NUL at its end.
    pub ptx: Vec<c_char>,
    /// The intermediate text it came from.
    pub ir: String,
    /// Dynamic shared memory of one block, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer, by position.
    pub io: Vec<BufferIOAttr>,
    /// Name of the function to launch.
    pub entrypoint: String,
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlironArtifact::NvptxCode(module) => f.write_str(&module.ir),
            PlironArtifact::Jit => f.write_str("jit"),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: REASON.to_string(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
