//! A file of frames as they came: what `taskscope save` writes, `taskscope top FILE` opens, and the wire's compatibility
//! tests read. Eight bytes of mark, then messages, each with its length before it: one `Description`, then `Frame`s. A
//! target that restarts while it is saved begins another file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Buf;
use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::v1::{Description, Frame};

const MARK: &[u8; 8] = b"tskscop1";

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    #[error("cannot write {0}: {1}\nhint: choose a folder that can be written")]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is no recording of taskscope\nhint: `taskscope save TARGET FILE` makes one")]
    Foreign(PathBuf),
    #[error(
        "{0} is damaged after {1} frames: {2}\nhint: the frames before it can be shown when the file is cut there"
    )]
    Damaged(PathBuf, usize, String),
    #[error(
        "{0} is cut off after {1} frames: what came later is not known\nhint: save it anew; `taskscope top FILE` shows what it has"
    )]
    Cut(PathBuf, usize),
}

/// Writes frames; a file that ends in the middle of one can be read up to there.
pub(crate) struct Writer {
    path: PathBuf,
    file: io::BufWriter<std::fs::File>,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Writer {
    pub(crate) fn create(path: &Path, description: &Description) -> Result<Self, RecordingError> {
        let fail = |error| RecordingError::Write(path.to_owned(), error);
        let mut file = io::BufWriter::new(std::fs::File::create(path).map_err(fail)?);
        file.write_all(MARK).map_err(fail)?;
        let mut writer = Self { path: path.to_owned(), file, frames: 0, bytes: MARK.len() as u64 };
        writer.write(description)?;
        Ok(writer)
    }

    pub(crate) fn frame(&mut self, frame: &Frame) -> Result<(), RecordingError> {
        self.frames += 1;
        self.write(frame)
    }

    fn write(&mut self, message: &impl Message) -> Result<(), RecordingError> {
        let bytes = message.encode_length_delimited_to_vec();
        self.bytes += bytes.len() as u64;
        self.file.write_all(&bytes).map_err(|error| RecordingError::Write(self.path.clone(), error))
    }

    /// Everything is in the file.
    pub(crate) fn finish(mut self) -> Result<(u64, u64), RecordingError> {
        self.file.flush().map_err(|error| RecordingError::Write(self.path.clone(), error))?;
        Ok((self.frames, self.bytes))
    }
}

/// A recording of so many frames.
pub(crate) fn bytes(description: &Description, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.extend(description.encode_length_delimited_to_vec());
    frames.iter().for_each(|frame| bytes.extend(frame.encode_length_delimited_to_vec()));
    bytes
}

/// Bytes of a recording of one frame.
pub(crate) fn len(description: &Description, frame: &Frame) -> usize {
    let delimited = |len: usize| prost::length_delimiter_len(len) + len;
    MARK.len() + delimited(description.encoded_len()) + delimited(frame.encoded_len())
}

/// A recording in memory.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) description: Description,
    pub(crate) frames: Vec<Frame>,
    /// It ends in the middle of a frame, which is not among them.
    pub(crate) is_cut: bool,
}

impl Recording {
    pub(crate) fn open(path: &Path) -> Result<Self, RecordingError> {
        let bytes = std::fs::read(path).map_err(|error| RecordingError::Read(path.to_owned(), error))?;
        Self::parse(path, &bytes)
    }

    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordingError> {
        let mut rest = bytes.strip_prefix(MARK).ok_or_else(|| RecordingError::Foreign(path.to_owned()))?;
        let damaged = |frames: usize, error: String| RecordingError::Damaged(path.to_owned(), frames, error);
        let description = message::<Description>(&mut rest).map_err(|error| damaged(0, error))?;
        let description =
            description.ok_or_else(|| damaged(0, "it ends before its target is described".into()))?;
        let mut frames = Vec::new();
        loop {
            match message::<Frame>(&mut rest) {
                Ok(Some(frame)) => frames.push(frame),
                // A writer that was killed leaves half a frame: what is before it is whole.
                Ok(None) => return Ok(Self { description, frames, is_cut: !rest.is_empty() }),
                Err(error) => return Err(damaged(frames.len(), error)),
            }
        }
    }
}

/// The next message; `None` at the end, also where the last one is cut off.
fn message<M: Message + Default>(rest: &mut &[u8]) -> Result<Option<M>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    let mut body = *rest;
    let Ok(len) = prost::decode_length_delimiter(&mut body) else {
        return if rest.len() < 10 { Ok(None) } else { Err("a length is no number".into()) };
    };
    if len > MAX_MESSAGE_BYTES {
        return Err(format!("a message of {len} bytes is larger than any"));
    }
    if body.remaining() < len {
        return Ok(None);
    }
    let (message, after) = body.split_at(len);
    *rest = after;
    M::decode(message).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(frames: u64) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("r");
        let description = Description { name: "api".into(), revision: 1, ..Default::default() };
        let mut writer = Writer::create(&path, &description).expect("it can be written");
        for seq in 1..=frames {
            writer.frame(&Frame { seq, at_ns: seq * 1000, ..Default::default() }).expect("it can be written");
        }
        assert_eq!(writer.finish().expect("it can be written").0, frames);
        std::fs::read(&path).expect("it was just written")
    }

    #[test]
    fn what_was_written_is_read_back() {
        let recording = Recording::parse(Path::new("r"), &written(3)).expect("it is whole");
        assert_eq!(recording.description.name, "api");
        assert_eq!(recording.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn bytes_are_what_is_written_and_as_many_as_told() {
        let description = Description { name: "api".into(), revision: 1, ..Default::default() };
        let frame = Frame { seq: 1, at_ns: 1000, ..Default::default() };
        assert_eq!(bytes(&description, std::slice::from_ref(&frame)), written(1));
        assert_eq!(len(&description, &frame), written(1).len());
    }

    #[test]
    fn a_file_cut_in_a_frame_is_read_up_to_there_and_a_foreign_one_is_refused() {
        let bytes = written(3);
        let cut =
            Recording::parse(Path::new("r"), &bytes[..bytes.len() - 2]).expect("the first frames are whole");
        assert_eq!((cut.frames.len(), cut.is_cut), (2, true));
        let whole = Recording::parse(Path::new("r"), &bytes).expect("it is whole");
        assert!(!whole.is_cut);
        let foreign = Recording::parse(Path::new("r"), b"#!/bin/sh").expect_err("it is no recording");
        assert!(foreign.to_string().contains("hint: "));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(mut bytes: Vec<u8>, whole: bool) {
            if whole { bytes.splice(0..0, MARK.iter().copied()); }
            let _ = Recording::parse(Path::new("r"), &bytes);
        }
    }
}
