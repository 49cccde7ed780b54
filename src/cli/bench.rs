//! `onward bench`: how fast this machine trains, beside its best matrix product.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::flags::{DataDir, Device};
use super::method::Method;
use super::output::{print, print_json};
use super::subject::Subject;
use crate::contract::architecture::Architecture;
use crate::error::{notify, printable, Error, Located, Result};
use crate::kernels::allocator;
use crate::kernels::meter::{self, Work};
use crate::kernels::rounding::Rounding;
use crate::plugin::registry;
use crate::plugin::run_settings::Precision;
use crate::run::observe::{Event, Observer};
use crate::run::RunBuilder;
use crate::settings::PluginKind;

#[derive(Args)]
pub(super) struct Bench {
    /// Methods: an architecture, or `architecture:preset`; settings of their own follow
    /// after commas, as in progressive,hidden=[2000,2000],batch=500. By default all
    /// architectures with their default presets.
    #[arg(value_name = "METHOD")]
    methods: Vec<Method>,
    /// Measure every preset of every architecture.
    #[arg(long, conflicts_with = "methods")]
    all: bool,
    /// Data set of all methods; by default that of each.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Seconds of training to measure, for each method.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: f64,
    /// A setting for all methods; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: Device,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

/// The measurements.
#[derive(Serialize)]
struct Report {
    processor: String,
    threads: usize,
    /// Billions of operations per second of the best product in 32 bits.
    best_product: f64,
    /// The same in bfloat16, where the processor has it.
    best_product_bf16: Option<f64>,
    methods: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    method: String,
    /// Why there is no measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    speed: Option<Speed>,
}

/// The speed of a method. What counts products is missing on a GPU, and where candle's
/// own operations multiply, as in backpropagation.
#[derive(Serialize)]
struct Speed {
    /// The steps that were measured.
    steps: usize,
    /// The median time of a step.
    step_seconds: f64,
    examples_per_second: f64,
    /// Billions of operations of the matrix products of a step, two for each
    /// multiplication with its addition.
    operations: Option<f64>,
    /// Billions of such operations per second.
    speed: Option<f64>,
    /// The same as a share of the best product of this precision.
    share_of_best: Option<f64>,
    /// The share of the threads' time that products take.
    time_in_products: Option<f64>,
    /// The allocations of a step, in a program whose allocator counts
    /// ([`Allocator`](crate::kernels::Allocator)).
    allocations: Option<f64>,
    /// The most memory that data and training held, in units of 10⁶ bytes.
    memory_mb: Option<f64>,
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        let methods = match (self.methods.is_empty(), self.all) {
            (false, _) => self.methods.clone(),
            (true, all) => known(all)?,
        };
        // A misspelt name is found before minutes of measuring. The default list is not
        // checked: some architectures lack a setting of `--set`.
        for method in &self.methods {
            let config = self.builder(method).and_then(|builder| builder.config());
            config.at(|| method.label().into())?;
        }
        let best = |rounding| meter::best_product(rounding).map(|speed| speed / 1e9);
        let [best_product, best_product_bf16] = [Rounding::None, Rounding::Bf16].map(best);
        meter::start();
        let mut report = Report {
            processor: processor(),
            threads: rayon::current_num_threads(),
            best_product: best_product.unwrap_or_default(),
            best_product_bf16,
            methods: Vec::new(),
        };
        let mut last = Ok(());
        for method in methods {
            notify(format_args!("  {}", printable(method.label())));
            let measured = self.measure(&method, &report);
            let (speed, problem) = match measured {
                Ok(speed) => (Some(speed), None),
                Err(error) => {
                    let problem = error.to_string();
                    last = Err(error).at(|| method.label().into());
                    (None, Some(problem))
                }
            };
            report.methods.push(Entry {
                method: method.label().into(),
                problem,
                speed,
            });
        }
        let is_measured = report.methods.iter().any(|entry| entry.speed.is_some());
        if is_measured || report.methods.len() > 1 {
            match self.json {
                true => print_json(&report),
                false => print(&in_words(&report)),
            }?;
        }
        // Of all architectures, some may lack their data.
        match is_measured && self.methods.is_empty() {
            true => Ok(()),
            false => last,
        }
    }

    fn builder(&self, method: &Method) -> Result<RunBuilder> {
        Subject::of_method(method, &self.set, self.data.as_deref())?.builder()
    }

    fn measure(&self, method: &Method, report: &Report) -> Result<Speed> {
        let builder = self.builder(method)?;
        let builder = self.data_dir.add_to(builder)?.device(&self.device.device);
        let stop = Arc::new(AtomicBool::new(false));
        allocator::start();
        // Evaluations are not steps.
        let builder = builder.set("evaluate_every", NEVER);
        let mut run = builder.stop_when(stop.clone()).build()?;
        let best = match run.config().run.precision {
            Precision::Bf16 => report.best_product_bf16,
            _ => Some(report.best_product),
        };
        let mut watch = Watch {
            seconds: self.seconds,
            stop,
            warm: 0,
            last: None,
            times: Vec::new(),
            total: 0.,
            examples: 0,
            work: Work::default(),
            allocations: 0,
        };
        match run.train_until(run.epochs(), &mut watch) {
            Err(error) if !error.is_stopped() => Err(error),
            _ => watch.speed(
                best.filter(|_| run.vars().device().is_cpu()),
                report.threads,
            ),
        }
    }
}

const NEVER: i64 = 1_000_000;

/// Steps before the first that is measured: memory is taken, caches are filled.
const WARM: usize = 3;

/// Measures the time and the work between two steps of an epoch.
struct Watch {
    seconds: f64,
    stop: Arc<AtomicBool>,
    warm: usize,
    /// The end of the step before, and what was counted until then.
    last: Option<(Instant, Work, u64)>,
    times: Vec<f64>,
    /// Their sum.
    total: f64,
    examples: usize,
    work: Work,
    allocations: u64,
}

impl Observer for Watch {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Stepped { examples, .. } => {
                let (now, work) = (Instant::now(), meter::so_far());
                let allocations = allocator::number();
                self.warm += 1;
                if let Some((last, before, taken)) = self.last.filter(|_| self.warm > WARM) {
                    let done = work.since(before);
                    let seconds = (now - last).as_secs_f64();
                    self.times.push(seconds);
                    self.total += seconds;
                    self.examples += examples;
                    self.work.multiply_adds += done.multiply_adds;
                    self.work.time += done.time;
                    self.allocations += allocations - taken;
                }
                self.last = Some((now, work, allocations));
                if self.total >= self.seconds {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            // What is between epochs is no step.
            _ => self.last = None,
        }
    }
}

impl Watch {
    /// The speed beside the best product, which is `None` where products are not counted.
    fn speed(mut self, best: Option<f64>, threads: usize) -> Result<Speed> {
        self.times.sort_by(f64::total_cmp);
        let steps = self.times.len();
        let Some(&median) = self.times.get(steps / 2) else {
            let problem = format!(
                "no step could be measured: the training has no epoch of more than {WARM} steps; \
                 set a smaller `batch`, more epochs, or choose larger data"
            );
            return Err(Error::unfit("bench", problem));
        };
        let counted = |value: f64| (best.is_some() && value > 0.).then_some(value);
        let operations = 2e-9 * self.work.multiply_adds as f64 / steps as f64;
        let of_threads = self.total * threads as f64;
        let most = allocator::most();
        let counts = most > 0;
        Ok(Speed {
            steps,
            step_seconds: median,
            examples_per_second: self.examples as f64 / steps as f64 / median,
            operations: counted(operations),
            speed: counted(operations / median),
            share_of_best: best.and_then(|best| counted(operations / median / best)),
            time_in_products: counted(self.work.time.as_secs_f64() / of_threads),
            allocations: counts.then_some(self.allocations as f64 / steps as f64),
            memory_mb: counts.then_some(most as f64 / 1e6),
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (0.01..=3600.).contains(number));
    number.ok_or_else(|| "expected a number of seconds from 0.01 to 3600".into())
}

/// The architectures with their default presets, or with all of them.
fn known(all: bool) -> Result<Vec<Method>> {
    let mut methods = Vec::new();
    for info in registry::infos(<dyn Architecture>::KIND)? {
        let of_architecture = Method::all_of(info);
        let count = if all { of_architecture.len() } else { 1 };
        methods.extend(of_architecture.into_iter().take(count));
    }
    Ok(methods)
}

/// The name of the processor, where the system tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| Some(line.split_once(':')?.1.trim()));
    name.unwrap_or(std::env::consts::ARCH).into()
}

fn in_words(report: &Report) -> String {
    let mut text = format!(
        "{}, {} threads; best product {:.0} GFLOP/s",
        report.processor, report.threads, report.best_product
    );
    if let Some(best) = report.best_product_bf16 {
        text += &format!(", {best:.0} in bfloat16");
    }
    text += "\n\n";
    let longest = report
        .methods
        .iter()
        .map(|entry| entry.method.chars().count());
    let width = longest.max().unwrap_or(0).max("method".len());
    let heads = [
        "step",
        "examples/s",
        "GFLOP",
        "GFLOP/s",
        "of best",
        "in products",
        "allocations",
        "memory",
    ];
    let line = |name: &str, cells: [String; 8]| {
        let [step, examples, operations, speed, share, time, allocations, memory] = cells;
        format!(
            "{name:<width$}  {step:>9}  {examples:>10}  {operations:>6}  {speed:>7}  \
             {share:>7}  {time:>11}  {allocations:>11}  {memory:>7}\n"
        )
    };
    text += &line("method", heads.map(String::from));
    for entry in &report.methods {
        let name = printable(&entry.method);
        let Some(speed) = &entry.speed else {
            let problem = entry.problem.as_deref().unwrap_or_default();
            text += &format!("{name:<width$}  {}\n", printable(problem));
            continue;
        };
        let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
        let whole = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.0}"));
        let percent = |value: Option<f64>| {
            value.map_or("–".into(), |value| format!("{:.0}%", 100. * value))
        };
        text += &line(
            &name,
            [
                format!("{:.2} ms", 1e3 * speed.step_seconds),
                format!("{:.0}", speed.examples_per_second),
                number(speed.operations),
                whole(speed.speed),
                percent(speed.share_of_best),
                percent(speed.time_in_products),
                whole(speed.allocations),
                speed
                    .memory_mb
                    .map_or("–".into(), |mb| format!("{mb:.0} MB")),
            ],
        );
    }
    text
}
