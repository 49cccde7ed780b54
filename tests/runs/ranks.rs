//! Runs on several ranks: the bits of one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use onward::candle_core;
use onward::comm::{channels, Comm, Team};
use onward::run::ranks::{self, Divisible, Phase};
use onward::{Result, Run, RunBuilder};

pub(super) fn plain() -> RunBuilder {
    Run::builder("progressive")
        .data("digits")
        .set("data.size", 300)
        .set("hidden", vec![20, 16, 12])
        .set("epochs", 2)
}

pub(super) fn builder() -> RunBuilder {
    plain().set("sampler.negatives", "uniform")
}

/// Trains on threads: stages of these levels, for each replica.
pub(super) fn train_on(
    builder: &RunBuilder,
    cuts: &[usize],
    replicas: usize,
    out: &Path,
) -> Result<()> {
    let stages = cuts.len() - 1;
    let teams = channels(stages * replicas).into_iter();
    let teams: Result<Vec<Team>> = teams.map(|comm| Team::new(comm, cuts.to_vec())).collect();
    let builder = builder.clone().set("replicas", replicas as i64);
    ranks::in_threads(
        teams?,
        |team| {
            let mut run = builder.clone().out(out).team(team).build()?;
            run.fit(&mut ()).map(|_| ())
        },
        |team| {
            let mut run = builder.clone().team(team).build()?;
            run.train_until(run.epochs(), &mut ())
        },
    )
}

#[test]
fn replicas_that_stop_within_an_epoch_go_on_to_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    let builder = builder().set("replicas", 3).set("batch", 5);
    train_on(&builder, &[0, 1, 3], 3, &whole)?;
    let stop = Arc::new(AtomicBool::new(true));
    let stopped = train_on(&builder.clone().stop_when(stop), &[0, 1, 3], 3, &part).unwrap_err();
    assert!(stopped.to_string().contains("after step"), "{stopped}");
    let teams = channels(6)
        .into_iter()
        .map(|comm| Team::new(comm, vec![0, 1, 3]));
    ranks::in_threads(
        teams.collect::<Result<_>>()?,
        |team| {
            let mut run = Run::open(&part)?.team(team).resume()?;
            run.fit(&mut ()).map(drop)
        },
        |team| {
            let mut run = Run::open(&part)?.team(team).resume()?;
            run.train_until(run.epochs(), &mut ())
        },
    )?;
    assert!(files(&part) == files(&whole));
    Ok(())
}

/// A connection that counts the bytes that it sends to each rank.
struct Counted {
    comm: Arc<dyn Comm>,
    to: Arc<Vec<AtomicU64>>,
}

impl Comm for Counted {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn ranks(&self) -> usize {
        self.comm.ranks()
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        self.to[to].fetch_add(message.len() as u64, Ordering::Relaxed);
        self.comm.send(to, message)
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        self.comm.receive(from)
    }
}

/// The bytes that each rank sends to each other one in a run.
fn sent(builder: &RunBuilder, cuts: &[usize], replicas: usize) -> Result<Vec<Vec<u64>>> {
    let ranks = (cuts.len() - 1) * replicas;
    let (mut counts, mut teams) = (Vec::new(), Vec::new());
    for comm in channels(ranks) {
        let to: Arc<Vec<AtomicU64>> = Arc::new((0..ranks).map(|_| AtomicU64::new(0)).collect());
        counts.push(to.clone());
        teams.push(Team::new(Arc::new(Counted { comm, to }), cuts.to_vec())?);
    }
    let builder = builder.clone().set("replicas", replicas as i64);
    let fit = |team| builder.clone().team(team).build()?.fit(&mut ()).map(drop);
    let follow = |team| {
        let mut run = builder.clone().team(team).build()?;
        run.train_until(run.epochs(), &mut ())
    };
    ranks::in_threads(teams, fit, follow)?;
    let read = |to: &AtomicU64| to.load(Ordering::Relaxed);
    Ok(counts
        .iter()
        .map(|to| to.iter().map(read).collect())
        .collect())
}

/// The files that have to be the same, and the reports of all blocks without their times.
fn files(run: &Path) -> (Vec<u8>, Vec<u8>, Vec<serde_json::Value>) {
    let read = |name: &str| std::fs::read(run.join(name)).unwrap();
    let metrics = String::from_utf8(read("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    });
    (
        read("model.safetensors"),
        read("state.safetensors"),
        lines.collect(),
    )
}

/// A language model.
fn on_text() -> RunBuilder {
    Run::builder("nlp")
        .data("fables")
        .set("data.tokenizer", "bpe:300")
        .set("hidden", vec![20, 16, 12])
        .set("epochs", 1)
}

/// A language model with local classifiers, on all context inputs.
fn with_context() -> RunBuilder {
    on_text()
        .set("sampler", "plain")
        .set("sampler.ngrams", 3)
        .set("sampler.buckets", 100)
        .set("sampler.layout", true)
        .set("sampler.recent", 0.9)
        .set("data.before", 20)
        .set("goodness", "projection")
        .set("loss", "cross_entropy")
        .set("optimiser", "sparse_adam")
        .set("lr", 0.001)
}

#[test]
fn stages_give_the_bits_of_one_rank() -> Result<()> {
    let cases = [
        ("text", on_text().set("sampler.negatives", "uniform")),
        ("context inputs", with_context()),
        ("some tokens", with_context().set("samples", 40)),
        ("as it is", builder()),
        ("greedy", builder().set("order", "greedy")),
        ("a head after the layers", builder().set("probe_epochs", 1)),
        ("one layer read out", builder().set("readout_to", 2)),
        ("no head", builder().set("head", false)),
        (
            "dropout",
            builder().set("dropout", 0.2).set("layer.peer", 0.03),
        ),
        ("classifiers", plain().set("goodness", "projection")),
        ("64 bits", builder().set("precision", "f64")),
    ];
    for (name, builder) in cases {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        builder
            .clone()
            .out(folder.join("one"))
            .build()?
            .fit(&mut ())?;
        for (index, cuts) in [[0, 1, 3].as_slice(), &[0, 2, 3], &[0, 1, 2, 3]]
            .into_iter()
            .enumerate()
        {
            let out = folder.join(index.to_string());
            train_on(&builder, cuts, 1, &out)?;
            let (found, wanted) = (files(&out), files(&folder.join("one")));
            assert!(found == wanted, "{name}, {cuts:?}");
        }
    }
    Ok(())
}

/// The numbers of a model.
fn model(run: &Path) -> Result<BTreeMap<String, Vec<f64>>> {
    let path = run.join("model.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)?;
    let flat =
        |tensor: candle_core::Tensor| -> Result<Vec<f64>> { Ok(tensor.flatten_all()?.to_vec1()?) };
    tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, flat(tensor)?)))
        .collect()
}

/// What `onward plan` reckons with: the bytes of each level for a batch, and for replicas
/// `2·(P − 1)/P` of the bytes of the parameters that learn.
#[test]
fn ranks_send_what_the_plan_reckons_with() -> Result<()> {
    for order in ["interleaved", "greedy"] {
        let builder = Run::builder("progressive")
            .preset("mono_forward")
            .data("digits")
            .set("data.size", 500)
            .set("validate", false)
            .set("batch", 100)
            .set("order", order)
            .set("hidden", vec![160; 8]);
        let of_epochs = |epochs: i64| builder.clone().set("epochs", epochs);
        let steps = builder.clone().build()?.data().train.len() as f64 / 100.;
        let network = Divisible::measure(&of_epochs(1))?;
        for (stages, replicas) in [(4, 1), (8, 1), (4, 2)] {
            let cuts: Vec<usize> = (0..=stages).map(|stage| stage * 8 / stages).collect();
            // What is sent once, at the start, is no matter of steps.
            let [short, long] = [1, 2].map(|epochs| sent(&of_epochs(epochs), &cuts, replicas));
            let (short, long) = (short?, long?);
            let per_step =
                |from: usize, to: usize| (long[from][to] - short[from][to]) as f64 / steps;
            for (stage, &end) in cuts.iter().enumerate().take(stages).skip(1) {
                let of_phase = |phase: &Phase| phase.levels[end - 1].bytes as f64;
                let wanted = network.phases().iter().map(of_phase).sum::<f64>() / replicas as f64;
                is_near(
                    per_step(stage - 1, stage),
                    wanted,
                    &format!("{order}, {stage} of {stages}"),
                );
            }
            for stage in (1..stages).filter(|_| replicas == 2) {
                let levels = cuts[stage]..cuts[stage + 1];
                let of_phase = |phase: &Phase| -> u64 {
                    let learning = phase.levels[levels.clone()]
                        .iter()
                        .filter(|cost| cost.learns);
                    learning.map(|cost| 4 * cost.parameters).sum()
                };
                let of_steps = network.phases().iter().map(of_phase).sum::<u64>() as f64;
                // After an epoch, the halves of Adam's two moments.
                let of_epoch = of_steps;
                is_near(
                    per_step(stage, stages + stage),
                    of_steps + of_epoch / steps,
                    &format!("{order}, replicas"),
                );
            }
        }
    }
    Ok(())
}

fn is_near(found: f64, wanted: f64, what: &str) {
    let share = found / wanted;
    assert!(
        (0.95..1.05).contains(&share),
        "{what}: {found} instead of {wanted}"
    );
}

#[test]
fn ranks_of_one_process_share_the_data() -> Result<()> {
    let builder = builder().share_data();
    let runs = [builder.clone().build()?, builder.build()?];
    let [first, second] = runs
        .each_ref()
        .map(|run| Arc::as_ptr(&run.data().train).cast::<()>());
    assert_eq!(first, second);
    let alone = plain().build()?;
    assert_ne!(Arc::as_ptr(&alone.data().train).cast::<()>(), first);
    Ok(())
}

/// Without random numbers in a step, the mean of the gradients of the parts of a batch
/// is the gradient of the batch, also where the parts are of different sizes.
#[test]
fn replicas_follow_the_gradient_of_the_whole_batch() -> Result<()> {
    let on_images = Run::builder("progressive")
        .preset("mono_forward")
        .data("digits")
        .set("data.size", 300)
        .set("epochs", 2);
    for builder in [on_images, with_context().set("mixture", false)] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let builder = builder
            .set("hidden", vec![14, 12])
            .set("batch", 64)
            .set("optimiser", "sgd")
            .set("lr", 0.05)
            .set("precision", "f64");
        builder
            .clone()
            .out(folder.join("one"))
            .build()?
            .fit(&mut ())?;
        let one = model(&folder.join("one"))?;
        for (replicas, cuts) in [(2, vec![0, 2]), (3, vec![0, 1, 2])] {
            let out = folder.join(replicas.to_string());
            train_on(&builder, &cuts, replicas, &out)?;
            let found = model(&out)?;
            for (name, wanted) in &one {
                for (found, wanted) in found[name].iter().zip(wanted) {
                    let difference = (found - wanted).abs();
                    assert!(
                        difference < 1e-9,
                        "{name}, {replicas} replicas: {difference}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn replicas_give_the_same_bits_in_any_stages() -> Result<()> {
    let on_images = builder().set("layer.peer", 0.03).set("dropout", 0.1);
    for builder in [on_images, with_context()] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (out, cuts) in [("a", vec![0, 3]), ("b", vec![0, 3]), ("c", vec![0, 2, 3])] {
            train_on(&builder, &cuts, 2, &folder.join(out))?;
        }
        let wanted = files(&folder.join("a"));
        assert!(files(&folder.join("b")) == wanted);
        assert!(files(&folder.join("c")) == wanted);
    }
    Ok(())
}

/// The mean of seven equal numbers, as of PEPITA's fixed projection, may be another
/// number.
#[test]
fn what_never_changes_is_the_same_with_replicas() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let builder = Run::builder("progressive")
        .preset("pepita")
        .data("digits")
        .set("data.size", 300)
        .set("hidden", vec![16])
        .set("epochs", 1);
    builder
        .clone()
        .out(folder.join("one"))
        .build()?
        .fit(&mut ())?;
    train_on(&builder, &[0, 1], 7, &folder.join("seven"))?;
    let bits = |run: &str| -> Result<Vec<u32>> {
        let path = folder.join(run).join("model.safetensors");
        let model = candle_core::safetensors::load(path, &candle_core::Device::Cpu)?;
        let fixed = model
            .into_iter()
            .find(|(name, _)| name.ends_with("projection"));
        let (_, fixed) = fixed.expect("a projection of the error");
        let values = fixed.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    assert_eq!(bits("seven")?, bits("one")?);
    Ok(())
}

#[test]
fn a_run_goes_on_in_stages_when_what_it_began_with_is_gone() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    builder().out(at("first")).build()?.fit(&mut ())?;
    let next = builder()
        .set("init", at("first").to_str().unwrap())
        .set("epochs", 3);
    next.out(at("next")).build()?.train_until(1, &mut ())?;
    std::fs::remove_dir_all(at("first")).unwrap();
    let opened = Run::open(at("next"))?;
    assert_eq!(Divisible::measure(&opened)?.divide(3, 1)?, [0, 1, 2, 3]);
    Ok(())
}
