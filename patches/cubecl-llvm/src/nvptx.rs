//! What `cubecl-cuda` asks about PTX. It knows no version: nothing here emits PTX.

/// Versions of the PTX language.
pub mod ptx_version {
    use std::fmt;

    /// A version of PTX; 8.7 would be 87. Only a part of cache names here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PtxVersion(u32);

    impl PtxVersion {
        /// The newest version that a driver loads: unknown here, whatever the driver.
        pub fn for_driver(_driver: i32) -> Option<PtxVersion> {
            None
        }
    }

    impl fmt::Display for PtxVersion {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "ptx{}", self.0)
        }
    }
}
