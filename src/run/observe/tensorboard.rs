//! Event files for TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics;
use crate::error::{notify, Error, Result};
use crate::run::folder::EVENTS;
use crate::run::observe::{Event, Observer};
use crate::run::protobuf::Message;

/// Writes scalars into a file `events.out.tfevents.…` in the folder of a run. The step of
/// a scalar is the number of complete epochs.
///
/// A file is a sequence of records. A record is the length of its data as 8 bytes, their
/// checksum, the data, their checksum; the data are a message `Event` of TensorFlow's
/// `event.proto`, of which this file writes four fields.
pub(super) struct TensorBoard {
    file: File,
    blocks: Vec<String>,
    has_warned: bool,
}

impl TensorBoard {
    /// Begins a new file, for a run that has completed `epoch` epochs. TensorBoard reads
    /// all files of a folder; of older ones it drops what is said again.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn after(folder: &Path, epoch: usize, blocks: &[String]) -> Result<Self> {
        let mut this = Self {
            file: create(folder)?,
            blocks: blocks.to_vec(),
            has_warned: false,
        };
        this.write(0, |event| event.text(3, "brain.Event:2"));
        // The status START, from this step on.
        let session = Message::default().number(1, 1);
        this.write(epoch as i64 + 1, |event| event.message(7, session));
        Ok(this)
    }

    fn scalars(&mut self, epoch: i64, scalars: &[(String, f64)]) {
        let add = |summary: Message, (tag, value): &(String, f64)| {
            let value = Message::default().text(1, tag).float(2, *value as f32);
            summary.message(1, value)
        };
        let summary = scalars.iter().fold(Message::default(), add);
        self.write(epoch, |event| event.message(5, summary));
    }

    /// Writes an event with the time and a step, and what `rest` adds.
    fn write(&mut self, step: i64, rest: impl FnOnce(Message) -> Message) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0., |time| time.as_secs_f64());
        let event = rest(Message::default().double(1, now).number(2, step));
        // One call for the whole record.
        if let Err(error) = self.file.write_all(&record(&event.into_bytes())) {
            if !std::mem::replace(&mut self.has_warned, true) {
                notify(format_args!(
                    "warning: cannot write the events for TensorBoard: {error}"
                ));
            }
        }
    }
}

/// A new file, whose name sorts behind those of earlier sittings.
fn create(folder: &Path) -> Result<File> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |time| time.as_secs());
    let mut number = 0;
    loop {
        let [begin, end] = EVENTS;
        let name = format!("{begin}{seconds:010}.{number}{end}");
        let path: PathBuf = folder.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
            opened => return opened.map_err(Error::file("create", &path)),
        }
    }
}

impl Observer for TensorBoard {
    fn on(&mut self, event: &Event<'_>) {
        let Some(line) = metrics::line(event, &self.blocks) else {
            return;
        };
        let epoch = line["epoch"].as_i64().unwrap_or(0);
        let tagged = |(what, of, value): (String, String, f64)| match of.is_empty() {
            true => (what, value),
            false => (format!("{what}/{of}"), value),
        };
        let scalars: Vec<_> = metrics::numbers(&line).into_iter().map(tagged).collect();
        self.scalars(epoch, &scalars);
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked(data).to_le_bytes());
    bytes
}

/// The checksum of a record: CRC-32C, rotated and moved, so that a checksum of data that
/// contain checksums still finds errors.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    // from tensorboard.compat.proto.event_pb2 import Event
    // from tensorboard.compat.proto.summary_pb2 import Summary
    // from tensorboard.summary.writer.record_writer import RecordWriter
    // value = Summary.Value(tag="loss/1", simple_value=.25)
    // event = Event(wall_time=1.5, step=300, summary=Summary(value=[value]))
    // RecordWriter(open("f", "wb")).write(event.SerializeToString())
    // print(list(open("f", "rb").read()))
    const RECORD: &[u8] = &[
        29, 0, 0, 0, 0, 0, 0, 0, 96, 47, 223, 35, 9, 0, 0, 0, 0, 0, 0, 248, 63, 16, 172, 2, 42, 15,
        10, 13, 10, 6, 108, 111, 115, 115, 47, 49, 21, 0, 0, 128, 62, 49, 145, 22, 220,
    ];

    #[test]
    fn a_record_is_that_of_tensorboards_own_writer() {
        let value = Message::default().text(1, "loss/1").float(2, 0.25);
        let summary = Message::default().message(1, value);
        let event = Message::default().double(1, 1.5).number(2, 300);
        assert_eq!(record(&event.message(5, summary).into_bytes()), RECORD);
    }
}
