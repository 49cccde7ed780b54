//! Unit tests of the language model.

use super::*;
use onward_core::data::DataSet;
use onward_core::{plugin, Vars};

/// The context of a network for the fables, a sampler and some windows.
fn of_fables(windows: &[usize]) -> Result<(BuildContext, Box<dyn NegativeSampler>, Batch)> {
    let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
    let data = plugin::build(&Pick::<DataSet>::new("fables"), &context)?;
    (context.example, context.classes, context.hypotheses) =
        (data.spec.shape, data.spec.classes.len(), true);
    context.tokenizer = data.text.map(|text| text.tokenizer);
    let sampler = plugin::build(&Pick::<dyn NegativeSampler>::new("next_token"), &context)?;
    let batch = data.test.batch(windows, None)?;
    let neutral = sampler.neutral(&data.test.batch(&[0], None)?)?;
    context.input = neutral.shape().to_vec();
    context.neutral = Some(neutral);
    Ok((context, sampler, batch))
}

/// Computes the log-odds of each layer by hand; the logit of a candidate is their
/// mean.
#[test]
fn the_search_weighs_candidates_by_the_mean_of_the_layers() -> Result<()> {
    let (context, sampler, batch) = of_fables(&[0, 7])?;
    let batch = batch.hidden();
    let (widths, temperature) = ([4, 9], 0.3);
    let settings = Nlp {
        hidden: widths.to_vec(),
        objective: Objective {
            temperature,
            ..Objective::default()
        },
        ..Nlp::default()
    };
    let net = LanguageModel::new(&settings, &context)?;
    let step = Step::evaluation(1);

    let candidates = every_class(context.classes, &batch)?;
    let mut heard = sampler
        .hypotheses(&batch, &candidates)?
        .expect("it makes hypotheses");
    heard = heard.normalised(Normalise::MeanSquare)?;
    let mut logits = vec![0f64; context.classes * batch.size()];
    for (block, units) in net.net().blocks.iter().zip(widths) {
        let activity = block.forward(&heard, &step)?;
        for (logit, activity) in logits.iter_mut().zip(activity.to_vec2::<f32>()?) {
            let goodness: f64 = activity.iter().map(|a| f64::from(a * a)).sum();
            *logit +=
                (goodness - units as f64) / (temperature * units as f64) / widths.len() as f64;
        }
        heard = block.pass_on(&activity, context.classes, &step)?;
    }
    let readout = net.net().readout("search")?;
    let found = net
        .scores(&batch, &*sampler, readout, &step)?
        .to_vec2::<f32>()?;
    for (example, found) in found.iter().enumerate() {
        let logit = |class: usize| logits[class * batch.size() + example];
        let sum = (0..context.classes)
            .map(|class| logit(class).exp())
            .sum::<f64>()
            .ln();
        for (class, found) in found.iter().enumerate() {
            let expected = logit(class) - sum;
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "{class}: {found} instead of {expected}"
            );
        }
    }
    Ok(())
}

/// The candidates share the probability that the head gives them together; other
/// tokens keep theirs.
#[test]
fn the_search_changes_only_the_most_probable_candidates() -> Result<()> {
    let (context, sampler, batch) = of_fables(&[0, 7, 30])?;
    let settings = Nlp {
        hidden: vec![6],
        candidates: Some(5),
        ..Nlp::default()
    };
    let (mut net, step) = (
        LanguageModel::new(&settings, &context)?,
        Step::evaluation(1),
    );
    // After a step, the head no longer predicts all tokens equally.
    let features = net.stack.features(sampler.neutral(&batch)?, &step)?;
    let log = net.stack.net.heads[0].log_probabilities(&features)?;
    net.stack.net.heads[0].learn(
        &features,
        &log,
        batch.labels()?,
        &Step {
            train: true,
            ..step
        },
    )?;
    let [head, found] =
        ["head", "search"].map(|name| net.scores(&batch, &*sampler, &Readout::new(name), &step));
    let (head, found) = (head?.to_vec2::<f32>()?, found?.to_vec2::<f32>()?);
    for (head, found) in head.iter().zip(found) {
        let mut order: Vec<usize> = (0..head.len()).collect();
        order.sort_by(|&a, &b| head[b].total_cmp(&head[a]).then(a.cmp(&b)));
        let together = |row: &[f32]| {
            order[..5]
                .iter()
                .map(|&token| f64::from(row[token]).exp())
                .sum::<f64>()
        };
        assert!((together(head) - together(&found)).abs() < 1e-5);
        assert!(
            order[..5]
                .iter()
                .any(|&token| (head[token] - found[token]).abs() > 1e-3),
            "no candidate was tried"
        );
        assert!(order[5..].iter().all(|&token| head[token] == found[token]));
        assert!((found.iter().map(|log| f64::from(*log).exp()).sum::<f64>() - 1.).abs() < 1e-5);
    }
    Ok(())
}
