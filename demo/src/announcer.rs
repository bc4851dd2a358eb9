//! Writes announcements, on a thread of its own. A reader that is slow, stopped or gone costs the service nothing: what
//! does not fit is left out, and the first failed write is the last.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::announcement::Announcement;
use crate::service::Output;

/// More than a whole tour says.
const WAITING_LINES: usize = 64;
/// A reader that has stopped does not keep the service from ending.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(crate) struct Announcer {
    output: Output,
    lines: Option<SyncSender<String>>,
    /// Disconnected once every line is written.
    written: Receiver<()>,
}

impl Announcer {
    pub(crate) fn start(output: Output, mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(WAITING_LINES);
        let (finished, written) = sync_channel(0);
        thread::Builder::new().name("demo-announcer".into()).spawn(move || {
            let _finished: SyncSender<()> = finished;
            for line in waiting {
                if sink.write_all(line.as_bytes()).and_then(|()| sink.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { output, lines: Some(lines), written })
    }

    /// Never waits.
    pub(crate) fn say(&self, announcement: &Announcement) {
        let line = match self.output {
            Output::Lines => format!("{announcement}\n"),
            Output::Words => format!("{}\n", announcement.words()),
        };
        if let Some(lines) = &self.lines {
            // Nobody reads: there is nobody to tell.
            let _ = lines.try_send(line);
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.written.recv_timeout(LAST_WORDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::Progress;
    use crate::clock;
    use crate::testing::Chunks;
    use std::sync::mpsc::channel;

    const DONE: Announcement = Announcement::Tour { state: Progress::Done };

    /// A pipe that is full, and whose reader never reads.
    struct Full(Receiver<()>);
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_before_the_announcer_ends() {
        for (output, expected) in
            [(Output::Lines, format!("{DONE}\n")), (Output::Words, format!("{}\n", DONE.words()))]
        {
            let (sink, written) = channel();
            let announcer = Announcer::start(output, Chunks(sink)).unwrap();
            announcer.say(&DONE);
            announcer.say(&DONE);
            drop(announcer);
            assert_eq!(written.iter().collect::<Vec<_>>(), [expected.clone(), expected]);
        }
    }

    #[test]
    fn a_closed_output_is_no_error() {
        let (sink, written) = channel();
        drop(written);
        let announcer = Announcer::start(Output::Lines, Chunks(sink)).unwrap();
        for _ in 0..1000 {
            announcer.say(&DONE);
        }
    }

    #[test]
    fn a_reader_that_never_reads_holds_nobody_up() {
        let (unblock, never) = channel();
        let started = clock::now();
        let announcer = Announcer::start(Output::Lines, Full(never)).unwrap();
        for _ in 0..1000 {
            announcer.say(&DONE);
        }
        drop(announcer);
        assert!(started.elapsed() < Duration::from_secs(5), "it waited for {:?}", started.elapsed());
        drop(unblock);
    }
}
