//! Memory statistics of the machine and of this process, where the system reports them
//! (Linux).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// While one of these lives, memory that is freed stays with the program, if its allocator
/// can keep it.
///
/// A training takes the same memory in every step. The kernel would clear what was given
/// back before it can be taken again, which takes time in every step.
pub(crate) struct Kept(());

/// How many of them there are.
static KEPT: Mutex<usize> = Mutex::new(0);

impl Kept {
    pub fn new() -> Self {
        Self::count(|kept| kept + 1);
        Self(())
    }

    fn count(change: impl Fn(usize) -> usize) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *kept > 0;
        *kept = change(*kept);
        if before != (*kept > 0) {
            #[cfg(feature = "allocator")]
            super::allocator::keep(*kept > 0);
        }
        if *kept == 0 {
            give_back();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        Self::count(|kept| kept - 1);
    }
}

/// Returns kept memory to the system. Training and evaluation take pieces of different sizes,
/// so that one cannot use what the other has left.
pub(crate) fn give_back() {
    #[cfg(feature = "allocator")]
    super::allocator::give_back();
}

/// The free memory in bytes: that of the machine, or what a container, a batch system or
/// `ulimit -v` leaves of it.
pub(crate) fn available() -> Option<u64> {
    let limits = [of_machine(), of_groups(), of_process()];
    limits.into_iter().flatten().min()
}

fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// What the limit of the addresses of this process leaves; `None` without a limit.
fn of_process() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let limit = of_limits(&limits)?;
    Some(limit.saturating_sub(of_status("VmSize:")?))
}

fn of_limits(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok() // "unlimited" is no limit
}

/// A size in bytes that the system states for this process.
fn of_status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What the control groups of this process leave; `None` without a limit.
fn of_groups() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", &SECOND),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", &FIRST)
            }
            _ => return None,
        };
        // The limits of all groups above hold too. In a container the path may be that of
        // the host, and the root that of the container.
        let mut folder = PathBuf::from(root).join(group);
        let mut least = of_group(&folder, names);
        while folder != Path::new(root) && folder.pop() {
            least = [least, of_group(&folder, names)]
                .into_iter()
                .flatten()
                .min();
        }
        least
    };
    text.lines().filter_map(of_line).min()
}

/// The files of a group that have its limit and its use, and what the entries of
/// `memory.stat` begin with for what the system gives back when it is needed.
struct Names {
    limit: &'static str,
    used: &'static str,
    reclaimable: [&'static str; 3],
}
const FIRST: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: [
        "total_inactive_file ",
        "total_active_file ",
        "total_slab_reclaimable ",
    ],
};
const SECOND: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    reclaimable: ["inactive_file ", "active_file ", "slab_reclaimable "],
};

fn of_group(folder: &Path, names: &Names) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?; // "max" is no limit
    let stat = read("memory.stat").unwrap_or_default();
    let of_line = |line: &str| {
        let rest = names
            .reclaimable
            .iter()
            .find_map(|name| line.strip_prefix(name))?;
        rest.trim().parse::<u64>().ok()
    };
    let reclaimable: u64 = stat.lines().filter_map(of_line).sum();
    let used = number(names.used)?.saturating_sub(reclaimable);
    Some(limit.saturating_sub(used))
}

/// The peak memory of this process in units of 10⁶ bytes.
pub(crate) fn peak_mb() -> Option<f64> {
    let bytes = of_status("VmHWM:")?;
    Some((bytes as f64 / 1000.).round() / 1000.)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_addresses_is_read() {
        let line = "Max address space         3145728000           unlimited            bytes";
        assert_eq!(of_limits(line), Some(3_145_728_000));
        assert_eq!(of_limits(&line.replace("3145728000", "unlimited ")), None);
        assert_eq!(of_limits("Max cpu time  1 2 seconds"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
        assert_eq!(of_group(base.path(), &SECOND), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(of_group(base.path(), &SECOND), None);
        write("memory.max", "1000\n");
        assert_eq!(of_group(base.path(), &SECOND), Some(300));
        write("memory.stat", "anon 5\ninactive_file 150\nactive_file 50\n");
        assert_eq!(of_group(base.path(), &SECOND), Some(500));
        write("memory.current", "5000\n");
        assert_eq!(of_group(base.path(), &SECOND), Some(0));
    }
}
