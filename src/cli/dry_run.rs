//! `onward train --dry-run`: what a training would be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcome::duration;
use super::output::print;
use crate::data::Split;
use crate::error::Result;
use crate::run::observe::Event;
use crate::run::Run;

/// The fewest steps that are timed; the first is not.
const TIMED: usize = 10;

/// For how long steps are taken, if that is more of them.
const TIME: Duration = Duration::from_secs(2);

/// Prints the settings in force as a configuration file and, as comments, the data, the
/// variables, the memory and an estimate of the time. `stop` is the run's own flag.
///
/// # Errors
/// Errors of the first steps.
pub(super) fn show(mut run: Run, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut text = run.config().to_toml();
    let count = |split| run.data().split(split).len();
    let [train, validation, test] = [Split::Train, Split::Validation, Split::Test].map(count);
    text += &format!(
        "\n# examples    {train} training, {validation} validation, {test} test\n# device      {}\n",
        run.device()
    );
    let mut parameters = 0;
    for (name, var) in run.vars().learned() {
        parameters += var.elem_count();
        text += &format!("# variable    {name} {:?}\n", var.dims());
    }
    text += &format!("# parameters  {parameters}\n");
    let (steps, epochs) = (run.steps_per_epoch(), run.epochs());
    let step = time_of_a_step(&mut run, stop)?;
    let all = step.map(|step| step.as_secs_f64() * (steps * epochs) as f64);
    // The first steps are those of the first phase.
    let condition = match run.phases() {
        Some(_) => " and if the layers that learn later take as long as the first ones",
        None => "",
    };
    let time = all.map_or("unknown".into(), |all| {
        format!("about {}, without evaluation{condition}", duration(all))
    });
    text += &format!("# steps       {epochs} epochs of {steps}\n# time        {time}\n");
    if let Some(peak) = crate::kernels::memory::peak_mb() {
        text += &format!("# memory      {peak:.0} MB after the first steps\n");
    }
    print(&text)
}

/// Takes the first steps of a run, which is not used afterwards.
///
/// The time is the median of the later half: the first steps take longer, since the
/// system hands out memory when it is first written.
fn time_of_a_step(run: &mut Run, stop: &Arc<AtomicBool>) -> Result<Option<Duration>> {
    let mut ends: Vec<Instant> = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Stepped { reports, .. } = event {
            // On a GPU this waits for the step. An error shows again in the training.
            let _ = reports
                .iter()
                .try_for_each(|(_, report)| report.read().map(|_| ()));
            ends.push(Instant::now());
            if ends.len() > TIMED && ends[0].elapsed() > TIME {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    match run.train_until(1, &mut observer) {
        Err(error) if !error.is_stopped() => return Err(error),
        _ => (),
    }
    let mut times: Vec<Duration> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut later = times.split_off(times.len() / 2);
    later.sort_unstable();
    Ok(later.get(later.len() / 2).copied())
}
