//! Memory statistics of the machine and of this process, where the system reports them
//! (Linux).

use std::path::{Path, PathBuf};

/// The free memory in bytes: that of the machine, or what a container or a batch system leaves
/// of it.
pub(crate) fn available() -> Option<u64> {
    let of_machine = of_machine();
    [of_machine, of_groups()].into_iter().flatten().min()
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

/// What the control groups of this process leave; `None` without a limit.
fn of_groups() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", SECOND),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", FIRST)
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

/// The files of a group that have its limit and its use, and the entry of `memory.stat` for
/// what the system gives back at once.
type Names = [&'static str; 3];
const FIRST: Names = [
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file ",
];
const SECOND: Names = ["memory.max", "memory.current", "inactive_file "];

fn of_group(folder: &Path, [limit, used, cached]: Names) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number(limit)?; // "max" is no limit
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached));
    let cached = cached.and_then(|line| line.trim().parse::<u64>().ok());
    let used = number(used)?.saturating_sub(cached.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

/// The peak memory of this process in units of 10⁶ bytes.
pub(crate) fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kibibytes * 1.024).round() / 1000.)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
        assert_eq!(of_group(base.path(), SECOND), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(of_group(base.path(), SECOND), None);
        write("memory.max", "1000\n");
        assert_eq!(of_group(base.path(), SECOND), Some(300));
        write("memory.stat", "anon 5\ninactive_file 200\n");
        assert_eq!(of_group(base.path(), SECOND), Some(500));
        write("memory.current", "5000\n");
        assert_eq!(of_group(base.path(), SECOND), Some(0));
    }
}
