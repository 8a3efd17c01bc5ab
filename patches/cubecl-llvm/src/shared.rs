//! What `cubecl-cuda` asks about the limits of the LLVM generator.

/// Features a device has and the generator cannot use.
pub mod lowered_features {
    use cubecl_core::ir::DeviceProperties;

    /// The GPU family that code is generated for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum GpuTarget {
        /// NVIDIA.
        Nvptx,
    }

    /// Takes away what the generator cannot use. It is called only where the
    /// LLVM generator was chosen, and that one refuses every kernel anyway, so
    /// there is nothing to take.
    pub fn restrict_features(_properties: &mut DeviceProperties, _target: GpuTarget) {}
}
