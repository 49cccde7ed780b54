//! The energy that processors and a GPU use, where the machine tells it.

use std::path::{Path, PathBuf};

use candle_core::Device;

/// The counters of the machine, for one training.
pub(crate) struct Counters {
    processors: Vec<Counter>,
    gpu: Option<Counter>,
}

/// The energy that was used, in joules: by the whole machine, other programs included.
/// `None` where the machine does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Energy {
    pub processors: Option<f64>,
    pub gpu: Option<f64>,
}

/// Reads a counter.
pub(super) type Reader = Box<dyn Fn() -> Option<u64> + Send>;

struct Counter {
    reader: Reader,
    joules: f64,
    /// It starts again from 0 above this.
    most: u64,
    last: u64,
    used: u64,
}

const POWER: &str = "/sys/class/powercap";

impl Counters {
    pub fn open(device: &Device) -> Self {
        Self {
            processors: processors(Path::new(POWER)),
            gpu: gpu(device),
        }
    }

    /// What was used since the last look does not count.
    pub fn skip(&mut self) {
        for counter in self.processors.iter_mut().chain(&mut self.gpu) {
            counter.passed();
        }
    }

    /// What was used since the last look counts. A processor's counter starts again about
    /// every half hour under load, so look more often than that.
    pub fn look(&mut self) -> Energy {
        for counter in self.processors.iter_mut().chain(&mut self.gpu) {
            counter.used += counter.passed();
        }
        let used = |counter: &Counter| counter.used as f64 * counter.joules;
        Energy {
            processors: match self.processors.is_empty() {
                true => None,
                false => Some(self.processors.iter().map(used).sum()),
            },
            gpu: self.gpu.as_ref().map(used),
        }
    }
}

impl Counter {
    fn new(reader: Reader, joules: f64, most: u64) -> Option<Self> {
        let last = reader()?;
        Some(Self {
            reader,
            joules,
            most,
            last,
            used: 0,
        })
    }

    /// How far it has counted since it was last read.
    fn passed(&mut self) -> u64 {
        let Some(now) = (self.reader)() else {
            return 0;
        };
        let passed = match now >= self.last {
            true => now - self.last,
            false => now + self.most.saturating_sub(self.last),
        };
        self.last = now;
        passed
    }
}

/// The processors under this folder: Linux, `intel-rapl`, which processors of AMD have as
/// well. On most machines root alone can read it; a virtual machine has none.
fn processors(folder: &Path) -> Vec<Counter> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let counter = |folder: PathBuf| {
        // `intel-rapl:0:1` and the like are parts of a processor.
        let parts = folder.file_name()?.to_str()?.strip_prefix("intel-rapl:")?;
        let most = number(&folder.join("max_energy_range_uj")).filter(|_| !parts.contains(':'))?;
        let file = folder.join("energy_uj");
        Counter::new(Box::new(move || number(&file)), 1e-6, most)
    };
    entries.filter_map(|entry| counter(entry.path())).collect()
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[allow(unused_variables)]
fn gpu(device: &Device) -> Option<Counter> {
    #[cfg(feature = "cuda")]
    return Counter::new(super::cuda::energy::millijoules(device)?, 1e-3, u64::MAX);
    #[cfg(not(feature = "cuda"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_processors_are_added_and_may_start_again() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, energy: u64| {
            let folder = base.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("max_energy_range_uj"), "1000000\n").unwrap();
            std::fs::write(folder.join("energy_uj"), format!("{energy}\n")).unwrap();
        };
        for (name, energy) in [
            ("intel-rapl:0", 900_000),
            ("intel-rapl:1", 5),
            ("intel-rapl:0:0", 7),
            ("dtpm", 3),
        ] {
            write(name, energy);
        }
        let mut counters = Counters {
            processors: processors(base.path()),
            gpu: None,
        };
        write("intel-rapl:0", 100_000);
        write("intel-rapl:1", 300_005);
        assert_eq!(counters.look().processors, Some(0.5));
        write("intel-rapl:0", 200_000);
        counters.skip();
        write("intel-rapl:0", 300_000);
        assert_eq!(counters.look().processors, Some(0.6));
        let none = tempfile::tempdir().unwrap();
        counters.processors = processors(none.path());
        assert_eq!(counters.look(), Energy::default());
    }
}
