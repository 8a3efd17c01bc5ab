//! How much memory is left: of the machine, of the group of processes that this
//! one is confined to, and of what a person allows.
//!
//! A guess, and no promise: others take memory too. Nothing is known outside of
//! Linux but what a person says.

use std::path::Path;

/// The variable that says how many MiB this program may take for models.
pub const LIMIT: &str = "REKINDLE_MEMORY_MIB";

/// Bytes that can still be taken without swapping; none where nobody says.
pub fn available() -> Option<u64> {
    let allowed =
        std::env::var(LIMIT).ok().and_then(|text| text.trim().parse::<u64>().ok()).map(|n| n << 20);
    let text = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let machine = text("/proc/meminfo").and_then(|info| of_machine(&info));
    let group = "/sys/fs/cgroup/memory";
    let group = text(&format!("{group}.max")).and_then(|most| {
        of_group(&most, &text(&format!("{group}.current"))?, &text(&format!("{group}.stat"))?)
    });
    [allowed, machine, group].into_iter().flatten().min()
}

/// How many processes the kernel has killed for want of memory, of the machine
/// and of the group of processes that this one is confined to; for comparison.
pub fn kills() -> u64 {
    let text = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let sources = ["/proc/vmstat", "/sys/fs/cgroup/memory.events"];
    sources.iter().map(|path| killed(&text(path))).sum()
}

/// The kills in a list of counters.
fn killed(counters: &str) -> u64 {
    let line = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// What the kernel thinks new programs can have.
fn of_machine(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n << 10)
}

/// What is left of a group's limit; pages of files can be dropped.
fn of_group(most: &str, current: &str, stat: &str) -> Option<u64> {
    let most: u64 = most.trim().parse().ok()?; // `max` is no limit
    let current: u64 = current.trim().parse().ok()?;
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let files: u64 = files.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    Some(most.saturating_sub(current.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let info = "MemTotal:       65843 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(of_machine(info), Some(2 << 20));
        assert_eq!(of_machine("MemTotal: 5 kB\n"), None);
        let stat = "anon 100\ninactive_file 30\nactive_file 7\n";
        assert_eq!(of_group("1000\n", "400\n", stat), Some(630));
        assert_eq!(of_group("100\n", "400\n", ""), Some(0));
        assert_eq!(killed("nr_free 5\noom_kill 3\noom_kill_x 9\n"), 3);
        assert_eq!(killed(""), 0);
        assert_eq!(of_group("max\n", "400\n", stat), None);
    }
}
