//! Training on several ranks: threads of this program, or the processes that `mpirun` has
//! started.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;

use super::stop::Stop;
use super::subject::{flag, refuse_twice};
use crate::comm::{channels, Comm, Team};
use crate::error::{Error, Result};
use crate::run::ranks::{self, Divisible};
use crate::run::{Run, RunBuilder};

/// The other processes of this program, if it was started as several.
static WORLD: OnceLock<Arc<dyn Comm>> = OnceLock::new();

/// Says that this process is one of several. Later calls change nothing.
pub(super) fn one_of(comm: Arc<dyn Comm>) {
    let _ = WORLD.set(comm);
}

/// The other processes, if there are several.
fn world() -> Option<Arc<dyn Comm>> {
    WORLD.get().filter(|comm| comm.ranks() > 1).cloned()
}

/// Whether this process is one of several.
pub(super) fn is_several() -> bool {
    world().is_some()
}

/// Whether this process does what needs no other one, such as printing a table.
pub(super) fn is_lead() -> bool {
    world().is_none_or(|comm| comm.rank() == 0)
}

/// The time in which rank 0 fails with the same error, and ends all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits where all processes fail alike, so that rank 0 alone says why.
pub(super) fn let_the_lead_speak() {
    if !is_lead() {
        std::thread::sleep(PATIENCE);
    }
}

/// What a message of this process begins with, if there are several.
pub(super) fn name() -> String {
    world().map_or(String::new(), |comm| format!("rank {}: ", comm.rank()))
}

/// How the layers and the examples of a training are divided.
#[derive(Args)]
pub(super) struct Ranks {
    /// Divide the layers among N stages that work at the same time, each on the batch
    /// that the stage below has finished. The result has the same bits. Stages are
    /// threads here; under mpirun (see the guide `machines`) they are its processes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    stages: Option<u16>,
    /// Divide every batch among N replicas of the network, which average their
    /// gradients; the same as --set replicas=N.
    #[arg(long, value_name = "N")]
    replicas: Option<String>,
}

impl Ranks {
    /// Refuses replicas that `--set` gives too.
    pub fn refuse_twice(&self, set: &[String]) -> Result<()> {
        refuse_twice(&[("replicas", &self.replicas)], set)
    }

    /// The run with these replicas.
    pub fn applied_to(&self, builder: RunBuilder) -> Result<RunBuilder> {
        Ok(match &self.replicas {
            Some(replicas) => builder.source(flag("replicas", replicas)?),
            None => builder,
        })
    }

    /// Builds the run that `build` makes on every rank, and trains it: `lead` on rank
    /// 0, the others beside it until they have trained as long.
    pub fn train(
        &self,
        builder: RunBuilder,
        until: Option<usize>,
        stop: &Stop,
        build: impl Fn(RunBuilder) -> Result<Run> + Sync,
        lead: impl FnOnce(Run) -> Result<()> + Send,
    ) -> Result<()> {
        let follow = |builder: RunBuilder| {
            let mut run = build(builder)?;
            // A signal reaches all processes; rank 0 decides when the run stops.
            stop.training_begins();
            let last = until.unwrap_or(usize::MAX).min(run.epochs());
            run.train_until(last, &mut ())
        };
        let builder = self.applied_to(builder)?;
        let (stages, replicas) = (self.stages.map(usize::from), builder.config()?.run.replicas);
        if let Some(comm) = world() {
            let found = comm.ranks();
            if let Some(stages) = stages.filter(|stages| stages * replicas != found) {
                let problem = format!(
                    "{stages} stages × {replicas} replicas need as many processes; found {found}"
                );
                return Err(Error::usage("--stages", problem));
            }
            let builder = builder.clone().team(ranks::team(comm.clone(), &builder)?);
            return match comm.rank() {
                0 => lead(build(builder)?),
                _ => match follow(builder) {
                    // Rank 0 says so, once it has saved.
                    Err(error) if error.is_stopped() => Ok(()),
                    followed => followed,
                },
            };
        }
        let stages = stages.unwrap_or(1);
        if stages * replicas == 1 {
            return lead(build(builder)?);
        }
        let builder = builder.share_data();
        let cuts = Divisible::measure(&builder)?.divide(stages, replicas)?;
        let teams = channels(stages * replicas).into_iter();
        let teams: Result<Vec<Team>> = teams.map(|comm| Team::new(comm, cuts.clone())).collect();
        ranks::in_threads(
            teams?,
            |team| lead(build(builder.clone().team(team))?),
            |team| follow(builder.clone().team(team)),
        )
    }
}
