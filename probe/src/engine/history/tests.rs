use super::*;

const S: u64 = STEP_NS;

fn second(at: u64) -> Second<'static> {
    Second { at_ns: at * S, alive: at, ..Second::default() }
}

fn chunks(history: &History, seconds: u32) -> Vec<HistoryChunk> {
    let Some(mut cursor) = history.cursor(seconds, u64::MAX) else { return Vec::new() };
    let chunks: Vec<_> = std::iter::from_fn(|| history.chunk(&mut cursor)).collect();
    let more: Vec<bool> = chunks.iter().map(|chunk| chunk.more).collect();
    let expected: Vec<bool> = (1..=chunks.len()).map(|n| n < chunks.len()).collect();
    assert_eq!(more, expected, "`more` is true but of the last");
    chunks
}

fn event(seq: u64, at_ns: u64, kind: event::Kind, group_id: u32) -> v1::Event {
    let poll = v1::LivePoll { group_id, task_id: seq, since_ns: 250_000_000, ..v1::LivePoll::default() };
    v1::Event { seq, at_ns, kind: kind.into(), poll: Some(poll), ..v1::Event::default() }
}

#[test]
fn the_oldest_seconds_go_first_and_absent_is_not_zero() {
    let mut history = History::with_bytes(MOST_BYTES);
    assert!(chunks(&history, 10).is_empty());
    for n in 0..1000 {
        let busy_ratio = (n % 2 == 0).then_some(0.0);
        history.push(&Second { busy_ratio, ..second(n) });
    }
    let all = chunks(&history, 2000);
    assert_eq!((all.len(), all[0].first_at_ns, all[0].alive.len()), (1, 100 * S, 900));
    let last = &chunks(&history, 2)[0];
    let columns = (&last.alive, &last.busy_permille_plus1, &last.queued_plus1);
    assert_eq!(columns, (&vec![998, 999], &vec![1, 0], &vec![0, 0]));
    assert_eq!(history.take_lost(), 0, "what is older than fifteen minutes is not lost");
}

#[test]
fn a_worker_or_pool_that_was_not_there_is_absent_in_that_second() {
    let mut history = History::with_bytes(MOST_BYTES);
    let pool = |busy| v1::Pool { name: "db".into(), busy, ..v1::Pool::default() };
    history.push(&second(1));
    let pools = [pool(Some(0))];
    history.push(&Second { workers: &[(1, 0, Some(0.0)), (2, 0, None)], pools: &pools, ..second(2) });
    let pools = [pool(None)];
    history.push(&Second { workers: &[(1, 0, Some(0.5))], pools: &pools, ..second(3) });
    history.push(&second(4));
    let chunk = &chunks(&history, 10)[0];
    let workers: Vec<_> =
        chunk.workers.iter().map(|worker| (worker.runtime_id, worker.busy_permille_plus1.clone())).collect();
    assert_eq!(workers, [(1, vec![0, 1, 501, 0]), (2, vec![0, 0, 0, 0])]);
    assert_eq!((chunk.pools[0].name.as_str(), &chunk.pools[0].busy_plus1), ("db", &vec![0, 1, 0, 0]));
}

#[test]
fn of_many_groups_the_busiest_of_each_second_are_kept_with_what_they_did_in_it() {
    let mut history = History::with_bytes(MOST_BYTES);
    let groups = |factor: u64| -> Vec<GroupTotals> {
        (0..256)
            .map(|id| GroupTotals {
                id,
                live: 1,
                polls_total: factor * u64::from(id),
                busy_ns_total: factor * u64::from(id) * 1_000,
            })
            .collect()
    };
    history.push(&Second { groups: &groups(1), ..second(1) });
    let mut next = groups(1);
    next[3].polls_total += 7;
    next[3].busy_ns_total += 900;
    history.push(&Second { groups: &next, ..second(2) });
    let chunk = &chunks(&history, 10)[0];
    let of = |id: u32| chunk.groups.iter().find(|group| group.group_id == id);
    let busiest = of(255).expect("it was the busiest");
    assert_eq!((busiest.polls[0], busiest.busy_ns[0]), (255, 255_000));
    let third = of(3).expect("it was the busiest in the second second");
    assert_eq!((&third.second, &third.polls, &third.busy_ns), (&vec![1], &vec![7], &vec![900]));
    for at in 0..2 {
        assert_eq!(chunk.groups.iter().filter(|group| group.second.contains(&at)).count(), BUSIEST_GROUPS);
    }
}

#[test]
fn at_the_extremes_it_stays_within_its_bytes_and_every_chunk_within_its_message() {
    let mut history = History::with_bytes(MOST_BYTES);
    let workers: Vec<(u32, u32, Option<f64>)> = (0..64).map(|index| (1, index, Some(0.999))).collect();
    let pools: Vec<v1::Pool> = (0..20)
        .map(|n| v1::Pool {
            name: format!("pool-{n}-{}", "x".repeat(300)),
            capacity: Some(u64::from(u32::MAX)),
            busy: Some(1 << 30),
            queued: Some(1 << 20),
            ..v1::Pool::default()
        })
        .collect();
    for n in 0..1_000u64 {
        let groups: Vec<GroupTotals> = (0..256)
            .map(|id| GroupTotals {
                id,
                live: 1_000_000,
                polls_total: n * 30_000_000 + u64::from(id),
                busy_ns_total: n * 60_000_000_000,
            })
            .collect();
        let totals = Second { alive: 1 << 22, polls: 1 << 28, requests: 1 << 24, ..second(n) };
        history.push(&Second { workers: &workers, pools: &pools, groups: &groups, ..totals });
        history.push_event(&event(n + 1, n * S, event::Kind::PollStuck, 1));
    }
    assert!(history.bytes() <= MOST_BYTES, "{}", history.bytes());
    assert_eq!(history.take_lost(), 0, "all of it has room");
    let chunks = chunks(&history, 900);
    let seconds: usize = chunks.iter().map(|chunk| chunk.alive.len()).sum();
    let events: Vec<u64> = chunks.iter().flat_map(|chunk| &chunk.events).map(|event| event.seq).collect();
    assert_eq!((seconds, events.len()), (900, 900));
    assert!(events.is_sorted());
    let mut next_ns = 100 * S;
    for chunk in &chunks {
        assert!(chunk.encoded_len() <= 256 << 10, "{}", chunk.encoded_len());
        assert_eq!(chunk.first_at_ns, next_ns, "without gap or overlap");
        next_ns += chunk.alive.len() as u64 * S;
        assert!(chunk.events.iter().all(|event| event.at_ns < next_ns));
        assert_eq!((chunk.workers.len(), chunk.pools.len()), (64, 20));
    }
}

#[test]
fn what_has_no_room_is_counted_and_the_latest_is_kept() {
    let mut history = History::with_bytes(TABLES_BYTES + (8 << 10));
    let workers: Vec<(u32, u32, Option<f64>)> = (0..300).map(|index| (1, index, Some(1.0))).collect();
    for n in 0..50 {
        history.push(&Second { workers: &workers, ..second(n) });
    }
    assert!(history.take_lost() > 50 * (300 - MAX_WORKERS) as u64);
    let chunks = chunks(&history, 900);
    assert_eq!(chunks.last().and_then(|chunk| chunk.alive.last()), Some(&49));
    assert!(chunks[0].alive.len() < 50 && chunks[0].workers.len() == MAX_WORKERS);
}

#[test]
fn a_second_that_is_missing_begins_another_chunk() {
    let mut history = History::with_bytes(MOST_BYTES);
    [1, 2, 3, 60, 61].into_iter().for_each(|n| history.push(&second(n)));
    let found: Vec<_> =
        chunks(&history, 900).iter().map(|chunk| (chunk.first_at_ns / S, chunk.alive.len())).collect();
    assert_eq!(found, [(1, 3), (60, 2)]);
}

#[test]
fn every_outlier_is_kept_and_what_is_slow_all_the_time_is_not() {
    let mut history = History::with_bytes(MOST_BYTES);
    for seq in 1..=2_000 {
        history.push_event(&event(seq, seq * S / 10, event::Kind::PollSlow, 1));
    }
    history.push_event(&event(2_001, 201 * S, event::Kind::PollSlow, 2));
    history.push_event(&event(2_002, 201 * S, event::Kind::TaskPanic, 1));
    history.push(&second(202));
    let kept: Vec<v1::Event> = chunks(&history, 900).remove(0).events;
    // 200 seconds are a part of four minutes.
    let always = kept.iter().filter(|event| event.seq <= 2_000).count();
    assert_eq!(always, 4 * SLOW_A_MINUTE as usize);
    assert_eq!(kept[always..].iter().map(|event| event.seq).collect::<Vec<_>>(), [2_001, 2_002]);
    // Those that the watcher is sent anyway are left out.
    let mut cursor = history.cursor(900, 2_001).expect("it has a second");
    let chunk = history.chunk(&mut cursor).expect("it has a second");
    assert_eq!(chunk.events.len(), always);
}

#[test]
fn more_events_than_a_chunk_holds_follow_in_order_and_old_ones_are_forgotten() {
    let mut history = History::with_bytes(MOST_BYTES);
    history.push(&second(1));
    for seq in 1..=4_000 {
        history.push_event(&event(seq, S, event::Kind::PollStuck, 1));
    }
    history.push(&second(2));
    let all = chunks(&history, 900);
    let events: Vec<u64> = all.iter().flat_map(|chunk| &chunk.events).map(|event| event.seq).collect();
    assert_eq!(events, (1..=4_000).collect::<Vec<_>>());
    assert!(all.len() > 1 && all.iter().all(|chunk| chunk.encoded_len() <= 512 << 10));
    history.push(&second(1_000));
    assert!(chunks(&history, 900).iter().all(|chunk| chunk.events.is_empty()));
}

#[test]
fn a_watcher_of_one_frame_gets_the_latest_seconds() {
    let mut history = History::with_bytes(MOST_BYTES);
    [1, 2, 50, 51].into_iter().for_each(|n| history.push(&second(n)));
    let mut cursor = history.cursor(900, u64::MAX).expect("it has seconds");
    let chunk = history.last_chunk(&mut cursor).expect("it has seconds");
    assert_eq!((chunk.alive, chunk.more), (vec![50, 51], false));
}

#[test]
fn pools_that_come_and_go_for_ever_take_no_more_room() {
    let mut history = History::with_bytes(MOST_BYTES);
    for n in 0..5_000 {
        let pools = [v1::Pool { name: format!("pool of minute {}", n / 60), ..v1::Pool::default() }];
        history.push(&Second { pools: &pools, ..second(n) });
    }
    assert_eq!((history.pools.len(), history.take_lost()), (MAX_POOLS, 0));
    let newest = history.pools.iter().filter(|pool| pool.name == "pool of minute 83").count();
    assert_eq!(newest, 1);
}

#[test]
fn the_last_seconds_taken_together_are_rates() {
    let mut history = History::with_bytes(MOST_BYTES);
    assert_eq!(history.recent(), Recent::default());
    for n in 1..=12 {
        history.push(&Second { polls: n, requests: 1, ..second(n) });
    }
    assert_eq!(history.recent(), Recent { window_ns: 10 * S, polls: 75, requests: 10 });
}
