//! Graphs in the format of ONNX (<https://onnx.ai>), operator set 17.
//!
//! A graph is a message of Protocol Buffers.

use candle_core::Tensor;

use super::protobuf::Message;
use crate::error::{Error, Result};
use crate::flow::graph::{Entry, Graph, Operation};

/// The types of numbers in a `TensorProto`.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// An attribute of a node.
enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

impl Attribute {
    fn written(&self, name: &str) -> Message {
        let message = Message::default().text(1, name);
        match self {
            Self::Float(value) => message.float(2, *value).number(20, 1),
            Self::Int(value) => message.number(3, *value).number(20, 2),
            Self::Ints(values) => values
                .iter()
                .fold(message, |message, value| message.number(8, *value))
                .number(20, 7),
        }
    }
}

/// A model with the input `examples` and the output `scores`.
///
/// # Errors
/// [`Error::Unfit`] for a network that is too large; errors of candle.
pub fn model(graph: &Graph) -> Result<Vec<u8>> {
    let constants = graph.constants().iter();
    let numbers: usize = constants.map(|(_, value)| value.elem_count()).sum();
    if numbers.saturating_mul(4) > LARGEST {
        let problem = format!(
            "has {} MB of weights, but a file of ONNX holds at most {} MB; use fewer units, or \
             model.safetensors, which has the same weights",
            numbers >> 18,
            LARGEST >> 20
        );
        return Err(Error::unfit("export", problem));
    }
    let (first, last) = (graph.entries().first(), graph.entries().last());
    let shape = |entry: Option<&Entry>| entry.map(|entry| entry.shape.clone()).unwrap_or_default();
    let mut message = Message::default();
    let mut numbers = Vec::new();
    for (index, entry) in graph.entries().iter().enumerate() {
        if let Some(node) = node(graph, index, entry, &mut numbers) {
            message = message.message(1, node);
        }
    }
    message = message.text(2, "onward");
    for (name, value) in graph.constants() {
        message = message.message(5, tensor(name, value)?);
    }
    for (name, values) in numbers {
        message = message.message(5, whole_numbers(&name, &values));
    }
    let message = message
        .message(11, value(EXAMPLES, &shape(first)))
        .message(12, value(SCORES, &shape(last)));
    let operators = Message::default().text(1, "").number(2, 17);
    let model = Message::default()
        .number(1, 8)
        .text(2, "onward")
        .text(3, env!("CARGO_PKG_VERSION"))
        .message(7, message)
        .message(8, operators);
    Ok(model.into_bytes())
}

/// The most bytes of the weights. Readers of protobuf refuse messages above 2 GiB.
const LARGEST: usize = (1 << 31) - (1 << 20);

const EXAMPLES: &str = "examples";
const SCORES: &str = "scores";

/// The name of the value that an entry computes.
fn name(graph: &Graph, index: usize) -> String {
    match &graph.entries()[index].operation {
        Operation::Input => EXAMPLES.into(),
        Operation::Constant { name } => name.clone(),
        _ if index + 1 == graph.entries().len() => SCORES.into(),
        _ => format!("value.{index}"),
    }
}

/// The node of an entry; whole numbers that it needs, such as a shape, are added to
/// `numbers`.
fn node(
    graph: &Graph,
    index: usize,
    entry: &Entry,
    numbers: &mut Vec<(String, Vec<i64>)>,
) -> Option<Message> {
    let mut inputs: Vec<String> = entry
        .of
        .iter()
        .map(|node| name(graph, node.index()))
        .collect();
    let output = name(graph, index);
    let mut with = |values: Vec<i64>, inputs: &mut Vec<String>| {
        let name = format!("numbers.{}", numbers.len());
        inputs.push(name.clone());
        numbers.push((name, values));
    };
    let whole = |value: usize| value as i64;
    let square = |size: usize| Attribute::Ints(vec![whole(size); 2]);
    let (kind, attributes): (&str, Vec<(&str, Attribute)>) = match &entry.operation {
        Operation::Input | Operation::Constant { .. } => return None,
        Operation::Matmul => ("MatMul", Vec::new()),
        Operation::Add => ("Add", Vec::new()),
        Operation::Multiply => ("Mul", Vec::new()),
        Operation::Divide => ("Div", Vec::new()),
        Operation::Maximum => ("Max", Vec::new()),
        Operation::LeakyRelu { slope: 0. } => ("Relu", Vec::new()),
        Operation::LeakyRelu { slope } => (
            "LeakyRelu",
            vec![("alpha", Attribute::Float(*slope as f32))],
        ),
        Operation::Sqrt => ("Sqrt", Vec::new()),
        Operation::LogSoftmax => ("LogSoftmax", vec![("axis", Attribute::Int(1))]),
        Operation::SumLast => {
            with(vec![-1], &mut inputs);
            ("ReduceSum", vec![("keepdims", Attribute::Int(0))])
        }
        Operation::Conv { padding } => {
            let pads = Attribute::Ints(vec![whole(*padding); 4]);
            ("Conv", vec![("pads", pads)])
        }
        Operation::MaxPool { size } => {
            let (size, strides) = (square(*size), square(*size));
            (
                "MaxPool",
                vec![("kernel_shape", size), ("strides", strides)],
            )
        }
        Operation::MeanPool { size } => {
            let size = || Attribute::Ints(size.map(whole).to_vec());
            let attributes = vec![("kernel_shape", size()), ("strides", size())];
            ("AveragePool", attributes)
        }
        Operation::Shape { dims } => {
            // 0 stands for the number of rows.
            let dims = dims.iter().map(|dim| whole(*dim));
            with([0].into_iter().chain(dims).collect(), &mut inputs);
            ("Reshape", Vec::new())
        }
        Operation::Reshape { dims } => {
            with(dims.iter().map(|dim| whole(*dim)).collect(), &mut inputs);
            ("Reshape", Vec::new())
        }
        Operation::PadColumns { count } => {
            with(vec![0, 0, 0, whole(*count)], &mut inputs);
            ("Pad", Vec::new())
        }
        Operation::ConcatColumns => ("Concat", vec![("axis", Attribute::Int(1))]),
        Operation::ConcatRows => ("Concat", vec![("axis", Attribute::Int(0))]),
        Operation::Views { count } => {
            with(vec![whole(*count), -1], &mut inputs);
            ("Reshape", Vec::new())
        }
        Operation::Transpose => ("Transpose", Vec::new()),
    };
    let mut message = Message::default();
    for input in &inputs {
        message = message.text(1, input);
    }
    message = message.text(2, &output).text(4, kind);
    for (name, attribute) in &attributes {
        message = message.message(5, attribute.written(name));
    }
    Some(message)
}

/// Numbers in 32 bits.
fn tensor(name: &str, value: &Tensor) -> Result<Message> {
    let dims = value.dims().iter();
    let message = dims.fold(Message::default(), |message, dim| {
        message.number(1, *dim as i64)
    });
    let values = value.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    Ok(message.number(2, FLOAT).text(8, name).bytes(9, &bytes))
}

fn whole_numbers(name: &str, values: &[i64]) -> Message {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let message = Message::default().number(1, values.len() as i64);
    message.number(2, INT64).text(8, name).bytes(9, &bytes)
}

/// The description of an input or output, with any number of rows.
fn value(name: &str, shape: &[usize]) -> Message {
    let rows = Message::default().text(2, "N");
    let mut dims = Message::default().message(1, rows);
    for dim in shape {
        dims = dims.message(1, Message::default().number(1, *dim as i64));
    }
    let of_tensor = Message::default().number(1, FLOAT).message(2, dims);
    let kind = Message::default().message(1, of_tensor);
    Message::default().text(1, name).message(2, kind)
}
