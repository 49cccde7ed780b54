//! A run as a graph for other programs.

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;

use super::Run;
use crate::error::{Error, Located, Result};
use crate::flow::batch::Batch;
use crate::flow::graph::{Graph, Inputs, Node};
use crate::flow::input::Input;
use crate::flow::vars::Vars;

/// The most that the numbers of a graph may differ from those of the run, as a share of
/// the largest.
const TOLERANCE: f64 = 1e-4;

impl Run {
    /// The scores of a readout as a graph of operations, from the examples as they are in
    /// files (pixels between 0 and 1) to one score per class. It is compared with the
    /// scores of the run on random examples.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown readout; [`Error::Unfit`] if a part of the network
    /// or of the data cannot be written as a graph, or its scores differ.
    pub fn graph(&self, readout: &str) -> Result<Graph> {
        let readout = self.readout(readout)?;
        if self.data.text.is_some() {
            let problem = "networks of text cannot be exported";
            return Err(Error::unfit(&self.config.architecture, problem));
        }
        let mut graph = Graph::default();
        let examples = graph.input(&self.data.spec.shape);
        let flat = graph.flat(examples);
        let neutral = self.view(&mut graph, flat, |batch| self.sampler.neutral(batch))?;
        let hypotheses = match readout.name {
            SEARCH => Some(self.hypotheses(&mut graph, flat)?),
            _ => None,
        };
        let inputs = Inputs {
            neutral,
            hypotheses,
        };
        let scores = self.architecture.graph(inputs, &readout, &mut graph);
        scores.at(|| self.config.architecture.clone())?;
        let graph = graph.pruned();
        self.check_graph(&graph, readout.name)?;
        Ok(graph)
    }

    /// A view of the examples for each class, and the number of classes.
    fn hypotheses(&self, graph: &mut Graph, flat: Node) -> Result<(Node, usize)> {
        let classes = self.data.spec.classes.len();
        let mut views = Vec::with_capacity(classes);
        for class in 0..classes as u32 {
            views.push(self.view(graph, flat, |batch| {
                let candidates = vec![class; batch.size()];
                let candidates = Tensor::new(candidates, batch.device())?.unsqueeze(0)?;
                let found = self.sampler.hypotheses(batch, &candidates)?;
                found.ok_or_else(crate::wiring::stack::no_hypotheses)
            })?);
        }
        Ok((graph.views(&views), classes))
    }

    /// A view of the examples: each number times a factor, plus an offset, with columns
    /// added. What a sampler and the preparation of the data do is found by asking them.
    fn view(
        &self,
        graph: &mut Graph,
        flat: Node,
        view: impl Fn(&Batch) -> Result<Input>,
    ) -> Result<Node> {
        let shape = &self.data.spec.shape;
        let of = |values: Tensor| -> Result<(Tensor, Vec<usize>)> {
            let batch = self.prepare(&Batch::unlabelled(values)?)?;
            let input = view(&batch)?;
            let shape = input.shape().to_vec();
            let joined = input.join()?.flatten_from(1)?.to_device(&Device::Cpu)?;
            Ok((joined.to_dtype(DType::F32)?, shape))
        };
        let one = [&[1], &shape[..]].concat();
        let (offset, of_view) = of(Tensor::zeros(&one[..], DType::F32, &Device::Cpu)?)?;
        let (ones, _) = of(Tensor::ones(&one[..], DType::F32, &Device::Cpu)?)?;
        let factor = (ones - &offset)?;
        let width = offset.dim(1)?;
        let other = random(&one)?;
        let (found, _) = of(other.clone())?;
        let columns = other.elem_count();
        let problem = |what: &str| {
            let problem = format!("cannot be exported: its views {what}");
            Error::unfit("sampler", problem)
        };
        if width < columns {
            return Err(problem("have fewer numbers than the examples"));
        }
        let padded = other.flatten_from(1)?;
        let padded = padded.pad_with_zeros(1, 0, width - columns)?;
        let expected = ((padded * &factor)? + &offset)?;
        if difference(&found, &expected)? > TOLERANCE * largest(&expected)?.max(1.) {
            return Err(problem("are not a factor and an offset of each number"));
        }
        let padded = graph.padded(flat, width);
        let factor = graph.constant(&factor.squeeze(0)?)?;
        let offset = graph.constant(&offset.squeeze(0)?)?;
        let scaled = graph.multiply(padded, factor);
        let view = graph.add(scaled, offset);
        Ok(graph.shaped(view, &of_view))
    }

    /// Compares the scores of a graph with those of the run.
    fn check_graph(&self, graph: &Graph, readout: &str) -> Result<()> {
        let examples = random(&[&[4], &self.data.spec.shape[..]].concat())?;
        let found = graph.evaluate(&examples)?.to_dtype(DType::F64)?;
        let expected = self.scores(examples, readout)?.to_device(&Device::Cpu)?;
        let expected = expected.to_dtype(DType::F64)?;
        if found.dims() != expected.dims() {
            let expected = format!("{:?}", expected.dims());
            return Err(Error::shape("scores of a graph", found.dims(), expected));
        }
        let largest = largest(&expected)?.max(1.);
        let apart = difference(&found, &expected)?;
        if apart <= TOLERANCE * largest {
            return Ok(());
        }
        let problem = format!(
            "cannot be exported: the scores of the graph differ by {apart} from those of the \
             network, which are up to {largest}"
        );
        Err(Error::unfit(readout, problem))
    }
}

/// The readout that sees a view for each class.
const SEARCH: &str = "search";

/// Numbers like pixels.
fn random(shape: &[usize]) -> Result<Tensor> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let (lo, up) = (0., 1.);
    Ok(vars
        .get("examples", shape, Init::Uniform { lo, up })?
        .as_detached_tensor())
}

/// The largest difference.
fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    largest(&(a - b)?)
}

/// The largest absolute value.
fn largest(x: &Tensor) -> Result<f64> {
    let largest = x.abs()?.flatten_all()?.max(0)?;
    Ok(largest.to_dtype(DType::F64)?.to_scalar()?)
}
