//! A run on several ranks: what they tell each other besides batches.

mod division;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use rand::Rng;
use serde::{Deserialize, Serialize};

pub use self::division::{cut, Divisible, Phase};
use super::checkpoint::Sums;
use super::feed::last_batch;
use super::tally::Tally;
use super::{settings, Run, RunBuilder};
use crate::comm::{Comm, Message, Team};
use crate::contract::staged::Staged;
use crate::error::{Error, Result};
use crate::flow::random;
use crate::flow::step::Step;
use crate::optim::Optimiser;

/// What has to be the same on all ranks.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Hello {
    version: String,
    settings: String,
    data: [u32; 3],
    epoch: usize,
    step: u64,
    weights: u32,
}

/// What rank 0 decides after a step or an epoch.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Decision {
    /// Whether the run was asked to stop.
    pub stops: bool,
    /// Whether `patience` has run out.
    pub has_stalled: bool,
}

/// The place of a rank. Rank 0 measures what each level costs, and tells the others how
/// the levels are divided.
///
/// # Errors
/// As [`Divisible::measure`] and [`Divisible::divide`]; [`Error::Setting`] if the ranks
/// are not a multiple of `replicas`; errors of the connection.
pub fn team(comm: Arc<dyn Comm>, builder: &RunBuilder) -> Result<Team> {
    let (ranks, replicas) = (comm.ranks(), builder.config()?.run.replicas);
    if !ranks.is_multiple_of(replicas) {
        let expected = format!("a divisor of the number of ranks, {ranks}");
        return Err(of_replicas(replicas, expected));
    }
    let mut message = Message::default();
    if comm.rank() == 0 {
        let cuts = Divisible::measure(builder)?.divide(ranks / replicas, replicas)?;
        message.put("cuts", &cuts);
        for rank in 1..ranks {
            comm.send(rank, message.to_bytes()?)?;
        }
    } else {
        message = Message::from_bytes(&comm.receive(0)?)?;
    }
    Team::new(comm, message.note("cuts")?.unwrap_or_default())
}

/// Runs `lead` with the first and `follow` with every other team, each on threads of its
/// own, and returns what `lead` returns. An error of any of them ends all.
///
/// # Errors
/// The error of rank 0 or, if that one could not go on without another, of the first
/// other rank with one of its own; [`Error::Usage`] if threads cannot be started.
pub fn in_threads<T: Send>(
    mut teams: Vec<Team>,
    lead: impl FnOnce(Team) -> Result<T> + Send,
    follow: impl Fn(Team) -> Result<()> + Sync,
) -> Result<T> {
    let threads = (rayon::current_num_threads() / teams.len().max(1)).max(1);
    let pool = || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|error| Error::usage("threads", error.to_string()))
    };
    let mut others = teams.split_off(1.min(teams.len()));
    let first = teams.pop();
    let first = first.ok_or_else(|| Error::usage("ranks", "expected one or more"))?;
    std::thread::scope(|scope| {
        let follow = &follow;
        let followers: Vec<_> = others
            .drain(..)
            .map(|team| scope.spawn(move || pool()?.install(|| follow(team))))
            .collect();
        let led = pool().and_then(|pool| pool.install(|| lead(first)));
        let failed = followers.into_iter().filter_map(|follower| {
            let followed = follower.join();
            followed
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .err()
        });
        let failed: Vec<Error> = failed.collect();
        match led {
            Err(error) if error.is_of_another_rank() => {
                let cause = failed.into_iter().find(|error| !error.is_of_another_rank());
                Err(cause.unwrap_or(error))
            }
            Ok(done) => match failed.into_iter().find(|error| !error.is_stopped()) {
                Some(error) => Err(error),
                None => Ok(done),
            },
            led => led,
        }
    })
}

impl Run {
    /// The place among several ranks, if there are several.
    pub fn team(&self) -> Option<&Team> {
        self.team.as_ref()
    }

    /// Whether this rank has the folder: the only one, or rank 0.
    pub(super) fn is_lead(&self) -> bool {
        self.team.as_ref().is_none_or(Team::is_lead)
    }

    /// Whether this rank looks at the examples.
    pub(super) fn reads_examples(&self) -> bool {
        self.team.as_ref().is_none_or(Team::is_first)
    }

    /// The examples of a batch that this rank learns from.
    pub(super) fn share(&self, examples: usize) -> Range<usize> {
        match &self.team {
            Some(team) => team.share(examples),
            None => 0..examples,
        }
    }

    /// The step with random numbers of its own for each replica.
    pub(super) fn of_replica(&self, step: Step) -> Step {
        match self.team.as_ref().map_or(0, Team::replica) {
            0 => step,
            replica => Step {
                seed: random::stream(step.seed, "replica", replica as u64).next_u64(),
                ..step
            },
        }
    }

    /// Refuses to train replicas without ranks for them.
    pub(super) fn check_ranks(&self) -> Result<()> {
        match (&self.team, self.config.run.replicas) {
            (None, replicas) if replicas > 1 => {
                let expected = "1 on a single rank; `onward train` and `mpirun` divide the batch \
                                among several, from Rust `run::ranks`";
                Err(of_replicas(replicas, expected))
            }
            _ => Ok(()),
        }
    }

    /// The number of replicas that the smallest batch of an epoch is enough for.
    fn most_replicas(&self) -> usize {
        let last = last_batch(self.data.train.len(), self.config.run.batch);
        (last / self.sampler.smallest_batch().max(1)).max(1)
    }

    /// Refuses a batch that cannot be divided among so many replicas.
    fn check_replicas(&self, replicas: usize) -> Result<()> {
        let most = self.most_replicas();
        match replicas > most {
            false => Ok(()),
            true => {
                let expected = format!("at most {most}, for the last batch of an epoch");
                Err(of_replicas(replicas, expected))
            }
        }
    }

    /// The levels of the network.
    fn staged(&mut self) -> Result<&mut dyn Staged> {
        let architecture = &self.config.architecture;
        let staged = self.architecture.staged();
        staged.ok_or_else(|| not_staged(architecture))
    }

    /// Takes the place among the ranks, and checks that all of them train the same run.
    pub(super) fn join(&mut self, team: Team) -> Result<()> {
        let (replicas, wanted) = (team.replicas(), self.config.run.replicas);
        if replicas != wanted {
            let expected = format!("{replicas}, as the ranks are divided");
            return Err(of_replicas(wanted, expected));
        }
        self.check_replicas(replicas)?;
        let weights = self.vars.checksum()?;
        self.staged()?.join(team.clone())?;
        // Of a stopped epoch; with another number of replicas the first one keeps all.
        let shares = std::mem::take(&mut self.tally.shares);
        let is_within = self.step != (self.epoch * self.steps_per_epoch()) as u64;
        if is_within && shares.len() == replicas {
            self.tally = shares[team.replica()].clone().into();
        } else if team.replica() > 0 {
            self.tally = Tally::default();
        }
        let own = Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            settings: settings::of(&self.config),
            data: self.fingerprints()?,
            epoch: self.epoch,
            step: self.step,
            weights,
        };
        if team.is_lead() {
            for (index, message) in team.receive_from_all()?.into_iter().enumerate() {
                let other: Option<Hello> = message.note("hello")?;
                own.check(index + 1, other)?;
            }
        } else {
            let mut message = Message::default();
            message.put("hello", &own);
            team.send_to_lead(&message)?;
        }
        self.team = Some(team);
        Ok(())
    }

    /// What rank 0 decides, for all ranks.
    pub(super) fn decided(&self, decision: Decision) -> Result<Decision> {
        let Some(team) = &self.team else {
            return Ok(decision);
        };
        let mut message = Message::default();
        message.put("decision", &decision);
        let decided = team.decided(message)?.note("decision")?;
        Ok(decided.unwrap_or_default())
    }

    /// Brings the state of all ranks to rank 0. Returns the reports of all blocks there.
    pub(super) fn gather(&mut self) -> Result<Tally> {
        let Some(team) = self.team.clone() else {
            return Ok(self.tally.clone());
        };
        self.staged()?.settle()?;
        if !team.is_lead() {
            // Said here, since a message has no numbers that are not finite.
            self.check(&self.tally.means()?)?;
            team.send_to_lead(&self.own_state(&team)?)?;
            return Ok(self.tally.clone());
        }
        let mut tallies = vec![Tally::default(); team.replicas()];
        tallies[0] = self.tally.clone();
        for (index, message) in team.receive_from_all()?.into_iter().enumerate() {
            let rank = index + 1;
            let levels = team.levels_of(rank % team.stages());
            let sums: Vec<Sums> = message.note("sums")?.unwrap_or_default();
            let own = sums.into_iter().filter(|sums| levels.contains(&sums.block));
            tallies[rank / team.stages()].replace(own.collect());
            // Other replicas have the same variables.
            if rank < team.stages() {
                self.take(&message.tensors.into_iter().collect())?;
            }
        }
        Tally::merged(&tallies)
    }

    /// The variables and optimisers of the levels of this rank.
    fn own_state(&self, team: &Team) -> Result<Message> {
        let net = self.architecture.net();
        let blocks = net.blocks[team.levels()].iter();
        let heads = net.heads.iter().filter(|_| team.is_last());
        let optimisers = blocks.map(|block| block.optimiser());
        let optimisers = optimisers.chain(heads.map(|head| head.optimiser()));
        let mut message = Message::default();
        for optimiser in optimisers.filter(|_| team.replica() == 0) {
            for (name, var) in optimiser.vars().all() {
                let tensor = var.as_detached_tensor();
                message.tensors.insert(format!("{VARIABLE}{name}"), tensor);
            }
            for (name, tensor) in optimiser.save()? {
                message.tensors.insert(format!("{OPTIMISER}{name}"), tensor);
            }
        }
        message.put("sums", &self.tally.sums()?);
        Ok(message)
    }

    /// Takes over the variables and optimisers of another rank.
    fn take(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.vars.all() {
            if let Some(tensor) = tensors.get(&format!("{VARIABLE}{name}")) {
                var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
        }
        self.vars.changed();
        let of_optimisers = tensors.iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(OPTIMISER)?;
            Some((name.to_string(), tensor.clone()))
        });
        let of_optimisers: HashMap<String, Tensor> = of_optimisers.collect();
        let has_some = |optimiser: &Optimiser| {
            let own = optimiser.vars().path("");
            of_optimisers.keys().any(|name| name.starts_with(&own))
        };
        let net = self.architecture.net_mut();
        let blocks = net.blocks.iter_mut().map(|block| block.optimiser_mut());
        let heads = net.heads.iter_mut().map(|head| head.optimiser_mut());
        for optimiser in blocks.chain(heads).filter(|optimiser| has_some(optimiser)) {
            optimiser.restore(&of_optimisers)?;
        }
        Ok(())
    }
}

/// The names of tensors between ranks begin with one of these.
const VARIABLE: &str = "variable.";
const OPTIMISER: &str = "optimiser.";

impl Hello {
    /// Refuses a rank that does not train the same run.
    fn check(&self, rank: usize, other: Option<Self>) -> Result<()> {
        let Some(other) = other else {
            return Err(Error::usage(format!("rank {rank}"), "sent no greeting"));
        };
        let problem = if other.version != self.version {
            format!("runs version {}, rank 0 {}", other.version, self.version)
        } else if let Some((key, own, others)) =
            settings::difference(&self.settings, &other.settings)
        {
            format!("has the setting `{key}` = {others}, rank 0 {own}")
        } else if other.data != self.data {
            "has other data than rank 0; put the same files on all machines".into()
        } else if (other.epoch, other.step) != (self.epoch, self.step) {
            format!(
                "is at step {}, rank 0 at step {}; give all ranks the same run folder",
                other.step, self.step
            )
        } else if other.weights != self.weights {
            "has other weights than rank 0; give all ranks the same run folder, and the same file \
             of `init`"
                .into()
        } else {
            return Ok(());
        };
        Err(Error::usage(format!("rank {rank}"), problem))
    }
}

fn of_replicas(replicas: usize, expected: impl Into<String>) -> Error {
    Error::refused("replicas", replicas, expected)
}

fn not_staged(architecture: &str) -> Error {
    let problem = format!(
        "`{architecture}` cannot be divided among ranks, neither in stages nor in replicas; choose \
         an architecture of stacked layers, or train it on one"
    );
    Error::unfit("stages", problem)
}
