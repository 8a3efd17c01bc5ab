//! What there is of the machine for programs: cores, memory, graphics cards.
//!
//! Cards are counted by what the NVIDIA driver shows of itself as files, so
//! that no library of it is loaded for steps that may need none. Knows nothing
//! of what computes on them.

use crate::host::{clock, memory};
use std::path::Path;

/// The variable by which CUDA is told which cards it may see.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Cores this process may use.
pub fn cores() -> usize {
    clock::cores()
}

/// Bytes of memory that can still be taken; none where nobody says.
pub fn memory() -> Option<u64> {
    memory::available()
}

/// Names of the cards that this process may use, in the order in which CUDA
/// numbers them: those of the environment, else `0`, `1`, ...
pub fn cards() -> Vec<String> {
    match std::env::var(VISIBLE) {
        Ok(names) => named(&names),
        Err(_) => (0..count(Path::new("/dev"))).map(|number| number.to_string()).collect(),
    }
}

/// Cards up to the first that cannot be: so the driver reads it.
fn named(names: &str) -> Vec<String> {
    let names = names.split(',').map(str::trim);
    names.take_while(|name| !name.is_empty() && !name.starts_with('-')).map(str::to_owned).collect()
}

/// How many files of cards a folder of device files has: `nvidia0`, `nvidia1`.
fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_card = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_card)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_those_the_driver_would_take() {
        assert_eq!(named("2, GPU-ab"), ["2", "GPU-ab"]);
        assert_eq!(named("0,-1,1"), ["0"]);
        assert!(named("").is_empty());
        let folder = temp_dir::TempDir::new().unwrap();
        for name in ["nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "null"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(count(folder.path()), 2);
    }
}
