//! `onward plan`: what more ranks would give, from the measured time of each layer.

use clap::Args;
use serde::Serialize;

use super::output::{print, print_json};
use super::subject::Subject;
use crate::contract::staged::Cost;
use crate::error::{notify, Result};
use crate::optim::Algorithm;
use crate::run::ranks::{Divisible, Phase};
use crate::run::RunBuilder;

#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    subject: Subject,
    /// The number of ranks: machines like this one, or with --threads N parts of one
    /// with N cores each.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: u16,
    /// The speed of the network between two ranks, as in 10Gbit or 100Mbit.
    #[arg(long, value_name = "SPEED", value_parser = link, default_value = "10Gbit")]
    link: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The levels of a network, and the ways to divide them. What changes during the
/// training, as in greedy order, is the mean over its epochs.
#[derive(Serialize)]
struct Report {
    /// Bits per second.
    link: f64,
    levels: Vec<Level>,
    /// The seconds of a step on one rank.
    alone: f64,
    ways: Vec<Way>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Level {
    seconds: f64,
    bytes_passed_on: u64,
    parameters: u64,
}

/// One way to divide a network among the ranks.
#[derive(Serialize)]
struct Way {
    stages: usize,
    replicas: usize,
    /// The first layer of each stage, counted from 1, and the last one.
    layers: Vec<[usize; 2]>,
    /// The seconds of a step.
    seconds: f64,
    speed_up: f64,
    /// The bytes that the busiest rank sends in a step.
    bytes_sent: u64,
    /// The megabytes of variables and optimisers on the fullest rank.
    memory_mb: f64,
}

impl Plan {
    pub(super) fn run(self) -> Result<()> {
        let builder = self.subject.builder()?;
        let network = Divisible::measure(&builder)?;
        let report = report(&network, self.ranks.into(), self.link, moments(&builder)?)?;
        match self.json {
            true => print_json(&report),
            false => print(&in_words(&report, self.ranks.into())),
        }
    }
}

/// The numbers that the optimiser keeps for each parameter.
fn moments(builder: &RunBuilder) -> Result<u64> {
    let config = builder.config()?;
    let optimiser = config
        .settings
        .get("optimiser")
        .and_then(|value| value.as_str());
    let adam = [Algorithm::Adam, Algorithm::SparseAdam].map(Algorithm::word);
    Ok(if optimiser.is_some_and(|name| adam.contains(&name)) {
        2
    } else {
        1
    })
}

fn report(network: &Divisible, ranks: usize, link: f64, moments: u64) -> Result<Report> {
    let phases = network.phases();
    let (mut ways, mut refused) = (Vec::new(), None);
    for stages in (1..=ranks).filter(|stages| ranks.is_multiple_of(*stages)) {
        match network.divide(stages, ranks / stages) {
            Ok(cuts) => ways.push(way(phases, &cuts, ranks / stages, link, moments)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if ways.is_empty() => return Err(error),
        Some(error) => notify(format_args!("note: other divisions are refused: {error}")),
        None => {}
    }
    ways.sort_by(|a, b| b.speed_up.total_cmp(&a.speed_up));
    let count = phases.first().map_or(0, |phase| phase.levels.len());
    let level = |index: usize| Level {
        seconds: mean(phases, |phase| phase.levels[index].time.as_secs_f64()),
        bytes_passed_on: mean(phases, |phase| phase.levels[index].bytes as f64) as u64,
        parameters: phases[0].levels[index].parameters,
    };
    Ok(Report {
        link,
        levels: (0..count).map(level).collect(),
        alone: mean(phases, |phase| seconds(&phase.levels)),
        ways,
    })
}

/// The mean over the epochs.
fn mean(phases: &[Phase], of: impl Fn(&Phase) -> f64) -> f64 {
    let epochs: usize = phases.iter().map(|phase| phase.epochs).sum();
    let sum: f64 = phases
        .iter()
        .map(|phase| phase.epochs as f64 * of(phase))
        .sum();
    sum / epochs.max(1) as f64
}

fn seconds(levels: &[Cost]) -> f64 {
    levels.iter().map(|cost| cost.time.as_secs_f64()).sum()
}

/// A stage in one phase, and the number of its replicas.
struct Stage<'a> {
    levels: &'a [Cost],
    is_last: bool,
    replicas: f64,
}

/// The model: a step takes as long as the slowest stage, or as the bytes that it sends.
/// A stage takes the time of its levels for its part of the batch. What it passes on is
/// sent while it works on the next batch. Its replicas exchange the gradient of a level
/// while they work on the next level: each sends `2·(P − 1)/P` of the numbers of the
/// parameters. The last gradient has nothing to hide behind.
impl Stage<'_> {
    /// The bytes that a rank passes on.
    fn passed(&self) -> f64 {
        let last = self.levels.last().filter(|_| !self.is_last);
        last.map_or(0., |level| level.bytes as f64 / self.replicas)
    }

    /// The bytes that a rank sends of the gradient of a level.
    fn exchanged(&self, level: &Cost) -> f64 {
        match level.learns {
            true => 2. * (self.replicas - 1.) / self.replicas * bytes(level.parameters),
            false => 0.,
        }
    }

    fn sent(&self) -> f64 {
        let exchanged = self.levels.iter().map(|level| self.exchanged(level));
        self.passed() + exchanged.sum::<f64>()
    }

    /// The seconds of a step, over a link of so many bits per second.
    fn seconds(&self, link: f64) -> f64 {
        let sending = |bytes: f64| 8. * bytes / link;
        let (mut learned, mut exchanged) = (0., 0f64);
        for level in self.levels {
            learned += level.time.as_secs_f64() / self.replicas;
            exchanged = exchanged.max(learned) + sending(self.exchanged(level));
        }
        exchanged.max(sending(self.sent()))
    }
}

fn parameters(levels: &[Cost]) -> u64 {
    levels.iter().map(|level| level.parameters).sum()
}

/// The bytes of numbers of 32 bits.
fn bytes(numbers: u64) -> f64 {
    4. * numbers as f64
}

/// What a way of dividing gives over a link of so many bits per second, with so many
/// moments per parameter.
fn way(phases: &[Phase], cuts: &[usize], replicas: usize, link: f64, moments: u64) -> Way {
    let slowest = |phase: &Phase, of: &dyn Fn(&Stage<'_>) -> f64| {
        let stages = cuts.windows(2).map(|ends| Stage {
            levels: &phase.levels[ends[0]..ends[1]],
            is_last: ends[1] == phase.levels.len(),
            replicas: replicas as f64,
        });
        stages.map(|stage| of(&stage)).fold(0., f64::max)
    };
    let time = mean(phases, |phase| slowest(phase, &|stage| stage.seconds(link)));
    let levels = phases.first().map_or(&[][..], |phase| &phase.levels);
    let fullest = cuts
        .windows(2)
        .map(|ends| parameters(&levels[ends[0]..ends[1]]));
    let memory = parameters(levels) + moments * fullest.max().unwrap_or(0);
    Way {
        stages: cuts.len() - 1,
        replicas,
        layers: cuts.windows(2).map(|ends| [ends[0] + 1, ends[1]]).collect(),
        seconds: time,
        speed_up: mean(phases, |phase| seconds(&phase.levels)) / time,
        bytes_sent: mean(phases, |phase| slowest(phase, &|stage| stage.sent())) as u64,
        memory_mb: bytes(memory) / 1e6,
    }
}

fn in_words(report: &Report, ranks: usize) -> String {
    let mut text = format!(
        "{ranks} ranks, {} between them; a step of one rank takes {:.1} ms\n\n",
        speed(report.link),
        1e3 * report.alone
    );
    text += "layer  ms/step  passes on  parameters\n";
    for (index, level) in report.levels.iter().enumerate() {
        text += &format!(
            "{:>5}  {:>7.2}  {:>6.2} MB  {:>10}\n",
            index + 1,
            1e3 * level.seconds,
            level.bytes_passed_on as f64 / 1e6,
            level.parameters
        );
    }
    text += "\nstages  replicas  expected  ms/step  sent/step  memory  layers\n";
    for way in &report.ways {
        let layers = way.layers.iter().map(|[first, last]| match first == last {
            true => first.to_string(),
            false => format!("{first}–{last}"),
        });
        text += &format!(
            "{:>6}  {:>8}  {:>7.2}×  {:>7.1}  {:>6.1} MB  {:>3.0} MB  {}\n",
            way.stages,
            way.replicas,
            way.speed_up,
            1e3 * way.seconds,
            way.bytes_sent as f64 / 1e6,
            way.memory_mb,
            layers.collect::<Vec<_>>().join(" | ")
        );
    }
    text += "\nStages give the bits of one rank; replicas do not. Not counted: evaluation, which \
             rank 0 does alone,\nand delays of the network. Memory is that of variables and \
             optimisers; rank 0 has those of all stages.\n";
    text
}

fn speed(link: f64) -> String {
    match link >= 1e9 {
        true => format!("{} Gbit/s", link / 1e9),
        false => format!("{} Mbit/s", link / 1e6),
    }
}

/// A speed such as `10Gbit`, in bits per second.
fn link(text: &str) -> std::result::Result<f64, String> {
    let units = [("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)];
    let found = units.iter().find_map(|(unit, bits)| {
        let number = text.trim_end_matches("/s").strip_suffix(unit)?;
        let number: f64 = number.trim().parse().ok()?;
        (number.is_finite() && number > 0.).then_some(number * bits)
    });
    found.ok_or_else(|| "expected a speed such as 10Gbit or 100Mbit".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn phase(milliseconds: &[u64]) -> Phase {
        let level = |time: &u64| Cost {
            time: Duration::from_millis(*time),
            bytes: 1_000_000,
            parameters: 1_000_000,
            learns: *time >= 10,
        };
        Phase {
            epochs: 1,
            levels: milliseconds.iter().map(level).collect(),
        }
    }

    #[test]
    fn the_slowest_stage_or_its_message_sets_the_pace() {
        let phases = [phase(&[10, 10, 20])];
        let fast = way(&phases, &[0, 2, 3], 1, 1e12, 1);
        assert_eq!(fast.layers, [[1, 2], [3, 3]]);
        assert!((fast.speed_up - 2.).abs() < 1e-9, "{}", fast.speed_up);
        // 1 MB at 100 Mbit/s takes 80 ms.
        let slow = way(&phases, &[0, 2, 3], 1, 1e8, 1);
        assert!((slow.seconds - 0.08).abs() < 1e-9, "{}", slow.seconds);
    }

    #[test]
    fn layers_that_learn_one_after_the_other_gain_little() {
        let phases = [phase(&[10, 0, 0]), phase(&[5, 10, 0]), phase(&[5, 5, 10])];
        let way = way(&phases, &[0, 2, 3], 1, 1e12, 1);
        // 45 ms on one rank: 10, 15 and 10 ms in two stages.
        assert!((way.speed_up - 45. / 35.).abs() < 1e-9, "{}", way.speed_up);
    }

    #[test]
    fn replicas_exchange_their_gradients_while_they_learn() {
        // Two replicas: each sends 4 MB per level, at 1 Gbit/s in 32 ms. The link is busy
        // from the end of the first level on.
        let found = way(&[phase(&[10, 10, 20])], &[0, 3], 2, 1e9, 1);
        let wanted = 0.005 + 3. * 0.032;
        assert!((found.seconds - wanted).abs() < 1e-9, "{}", found.seconds);
        assert_eq!(found.bytes_sent, 12_000_000);
        // At 40 Gbit/s only the last gradient has to be waited for.
        let found = way(&[phase(&[10, 10, 20])], &[0, 3], 2, 4e10, 1);
        let wanted = 0.02 + 0.0008;
        assert!((found.seconds - wanted).abs() < 1e-9, "{}", found.seconds);
        // A layer that only passes on has nothing to exchange.
        let found = way(&[phase(&[5, 5, 20])], &[0, 3], 2, 1e9, 1);
        assert_eq!(found.bytes_sent, 4_000_000);
    }

    #[test]
    fn links_have_a_unit() {
        assert_eq!(link("10Gbit"), Ok(1e10));
        assert_eq!(link("100Mbit/s"), Ok(1e8));
        for wrong in ["10", "fast", "-1Gbit", "infGbit", "NaNGbit", ""] {
            assert!(link(wrong).is_err(), "{wrong}");
        }
    }
}
