//! How many threads are worth running.

use std::num::NonZero;

/// The physical cores that this process may use: those of its CPU affinity, within its cgroup quota.
///
/// Two hardware threads of one core share its arithmetic units, so dense products gain nothing from
/// the second.
pub fn default_threads() -> usize {
    // Counts affinity and cgroup quota, but hardware threads.
    let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
    allowed.min(physical_cores().unwrap_or(allowed)).max(1)
}

/// Distinct cores among the CPUs of the affinity mask, where the system tells.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let siblings = |cpu: usize| {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        std::fs::read_to_string(format!("{topology}/thread_siblings_list")).ok()
    };
    let mut cores: Vec<String> = cpu_list(allowed)?.map(siblings).collect::<Option<_>>()?;
    cores.sort_unstable();
    cores.dedup();
    Some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// The numbers of a list such as `0-3,8,10-11`.
#[cfg(target_os = "linux")]
fn cpu_list(list: &str) -> Option<impl Iterator<Item = usize>> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    let ranges: Vec<std::ops::RangeInclusive<usize>> = ranges.collect::<Option<_>>()?;
    Some(ranges.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_what_the_process_may_use() {
        let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
        assert!((1..=allowed).contains(&default_threads()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn cpu_lists_are_read() {
        let read = |list| cpu_list(list).map(Iterator::collect::<Vec<_>>);
        assert_eq!(read("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(read("5"), Some(vec![5]));
        assert_eq!(read(""), None);
        assert_eq!(read("1-x"), None);
    }
}
