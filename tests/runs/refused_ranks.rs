//! What cannot be divided among ranks, and ranks that do not belong together.

use onward::candle_core;
use onward::comm::{channels, Team};
use onward::run::ranks::{self, Divisible};
use onward::{Result, Run, RunBuilder};

use super::ranks::{builder, plain, train_on};

#[test]
fn what_cannot_be_divided_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let message = |builder: RunBuilder, cuts: &[usize], replicas| {
        let error = train_on(&builder, cuts, replicas, &out).unwrap_err();
        error.to_string()
    };
    let hard = builder().set("sampler.negatives", "hard");
    let message_of_hard = message(hard, &[0, 1, 3], 1);
    assert!(
        message_of_hard.contains("sampler.negatives=uniform"),
        "{message_of_hard}"
    );

    let recurrent = Run::builder("recurrent")
        .data("digits")
        .set("data.size", 300);
    let of_recurrent = message(recurrent, &[0, 1], 2);
    assert!(
        of_recurrent.contains("`recurrent` cannot be divided"),
        "{of_recurrent}"
    );

    let too_many = message(builder().set("batch", 2), &[0, 3], 3);
    assert!(too_many.contains("`replicas` = 3"), "{too_many}");

    let hebbian = Run::builder("progressive")
        .preset("softhebb")
        .data("digits");
    let of_hebbian = message(hebbian.set("data.size", 300), &[0, 3], 2);
    assert!(of_hebbian.contains("no gradient"), "{of_hebbian}");

    let alone = builder().set("replicas", 2).build().unwrap().fit(&mut ());
    let alone = alone.unwrap_err().to_string();
    assert!(alone.contains("1 on a single rank"), "{alone}");

    let solved = message(
        plain()
            .set("head_rule", "ridge")
            .set("sampler.negatives", "uniform"),
        &[0, 3],
        2,
    );
    assert!(solved.contains("head_rule = ridge"), "{solved}");

    assert!(!out.exists(), "a refused run leaves a folder");
}

#[test]
fn what_cannot_be_divided_is_known_before_ranks_start() {
    let refusal = |builder: RunBuilder, stages, replicas| {
        let network = Divisible::measure(&builder)?;
        network.divide(stages, replicas)
    };
    let message = |builder, stages, replicas| {
        let refusal: Result<Vec<usize>> = refusal(builder, stages, replicas);
        refusal.unwrap_err().to_string()
    };
    let too_many = message(builder(), 4, 1);
    assert!(too_many.contains("1 to 3"), "{too_many}");
    let hard = builder().set("sampler.negatives", "hard");
    let of_hard = message(hard.clone(), 2, 1);
    assert!(of_hard.contains("sampler.negatives=uniform"), "{of_hard}");
    // One stage has the prediction.
    assert_eq!(refusal(hard, 1, 2).unwrap(), [0, 3]);
    let of_replicas = message(builder().set("batch", 2), 1, 3);
    assert!(of_replicas.contains("at most 2"), "{of_replicas}");
    let set = builder().set("batch", 2).set("replicas", 3);
    let error = Divisible::measure(&set)
        .err()
        .expect("too many")
        .to_string();
    assert!(error.contains("from set(replicas)"), "{error}");
    let solved = builder().set("head_rule", "ridge");
    assert!(message(solved, 1, 2).contains("at most 1"));
}

#[test]
fn ranks_with_other_weights_are_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let init = at("init.safetensors");
    // A file of the same path, as on two machines, with other weights.
    for (seed, name) in [(5, "one"), (9, "other")] {
        let start = at(&format!("start-{name}"));
        builder().seed(seed).build()?.save(&start)?;
        let model = start.join("model.safetensors");
        let weights = candle_core::safetensors::load(model, &candle_core::Device::Cpu)?;
        candle_core::safetensors::save(&weights, &init)?;
        let run = builder().set("init", init.to_str().unwrap());
        run.out(at(name)).build()?.train_until(1, &mut ())?;
    }
    let goes_on = |rest: &str| {
        let teams = channels(2).into_iter();
        let teams = teams.map(|comm| Team::new(comm, vec![0, 1, 3]).unwrap());
        let open = |name: &str, team| Run::open(at(name))?.team(team).resume();
        ranks::in_threads(
            teams.collect(),
            |team| open("one", team)?.fit(&mut ()).map(drop),
            |team| {
                let mut run = open(rest, team)?;
                run.train_until(run.epochs(), &mut ())
            },
        )
    };
    let error = goes_on("other").unwrap_err().to_string();
    let expected = ["rank 1", "has other weights than rank 0"];
    assert!(expected.iter().all(|text| error.contains(text)), "{error}");
    goes_on("one")
}

#[test]
fn ranks_with_other_settings_or_data_are_named() {
    for (key, value, wanted) in [
        ("lr", 0.02, "`lr` = 0.02"),
        ("data.size", 200., "other data"),
    ] {
        let teams = channels(2).into_iter();
        let teams = teams.map(|comm| Team::new(comm, vec![0, 1, 3]).unwrap());
        let other = match key {
            "data.size" => builder().set(key, value as i64),
            _ => builder().set(key, value),
        };
        let error = ranks::in_threads(
            teams.collect(),
            |team| builder().team(team).build()?.fit(&mut ()),
            |team| other.clone().team(team).build().map(|_| ()),
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("rank 1") && error.contains(wanted),
            "{error}"
        );
    }
}
