//! Pairs of tasks that hand one message to and fro.

use tokio::sync::mpsc::unbounded_channel;

use crate::Mode;

const PAIRS: u64 = 32;

/// A unit is a message.
pub(crate) async fn run<M: Mode>(units: u64) -> u64 {
    let rounds = units.div_ceil(PAIRS * 2);
    let mut tasks = Vec::new();
    for _ in 0..PAIRS {
        let (ping, mut pinged) = unbounded_channel();
        let (pong, mut ponged) = unbounded_channel();
        tasks.push(M::spawn(async move {
            while let Some(round) = pinged.recv().await {
                pong.send(round).expect("the other waits for an answer");
            }
        }));
        tasks.push(M::spawn(async move {
            for round in 0..rounds {
                ping.send(round).expect("the other waits for a message");
                ponged.recv().await.expect("the other answers");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a pair does not panic");
    }
    PAIRS * rounds * 2
}
