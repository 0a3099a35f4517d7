//! The real statements of the protocol in every order, on a real server.
//!
//! Each session runs its operations on a connection of its own that stops before every statement; a schedule
//! decides which session runs next. A session whose statement waits for a lock loses its turn until the lock
//! is free. For two transactions, all schedules run. For whole lives of writers and collectors, all schedules
//! run that delay one of them once, and some random ones (`GRAVITON_SCHEDULES` of each).
//!
//! After each schedule the property of the protocol must hold: every committed blob has its blocks' rows and
//! bytes.

mod life;
mod stage;

#[path = "../../../../../tests/left_out.rs"]
mod left_out;

use life::Life::{
    self, Collect, CollectAndDie, Delete, DoomAndRemove, Expire, PinAndCommit, PutBoth, PutSame, PutWhole,
    Restore, Tidy, Verify,
};
use stage::Stage;

/// All schedules of two lives, depth first: the choices of the last one are changed from the end.
async fn all_schedules(lives: [Life; 2], deleted: bool, most: usize) -> usize {
    let mut stage = Stage::new(2).await;
    // For each turn: which of how many was chosen.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for count in 1.. {
        let world = stage.set(deleted).await;
        let mut turn = 0;
        let committed = stage
            .play(&world, &lives, |turns| {
                if turn == path.len() {
                    path.push((0, turns.len()));
                }
                // A lock that was waited for a little longer or shorter may change who is ready.
                path[turn].1 = turns.len();
                let chosen = path[turn].0.min(turns.len() - 1);
                turn += 1;
                turns[chosen]
            })
            .await;
        path.truncate(turn);
        stage.check(&world, &committed, &format!("{lives:?} deleted={deleted} {path:?}")).await;
        while path.last().is_some_and(|(chosen, of)| chosen + 1 >= *of) {
            path.pop();
        }
        let Some(last) = path.last_mut() else { return count };
        last.0 += 1;
        if count == most {
            return count;
        }
    }
    unreachable!("every path ends")
}

/// Every schedule in which one session is held up once, anywhere, while the others do all they want to.
async fn all_pauses(lives: &[Life], deleted: bool) {
    let mut stage = Stage::new(lives.len()).await;
    for paused in 0..lives.len() {
        for at in 0.. {
            let world = stage.set(deleted).await;
            let (mut done, mut others) = (0, 0);
            let committed = stage
                .play(&world, lives, |turns| {
                    let other = turns.iter().copied().find(|session| *session != paused);
                    // Some wait for the one that is held up: for its doom to end.
                    let held_up = done == at && others < 60;
                    match other {
                        Some(other) if held_up || !turns.contains(&paused) => {
                            others += 1;
                            other
                        }
                        _ => {
                            done += 1;
                            paused
                        }
                    }
                })
                .await;
            stage
                .check(&world, &committed, &format!("{lives:?} deleted={deleted}, {paused} held up at {at}"))
                .await;
            if done < at {
                break;
            }
        }
    }
}

/// A number of random schedules of these lives.
async fn random_schedules(lives: &[Life], deleted: bool, count: u64, seed: u64) {
    let mut stage = Stage::new(lives.len()).await;
    for run in 0..count {
        let world = stage.set(deleted).await;
        let mut random = seed ^ (run + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let committed = stage
            .play(&world, lives, |turns| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                turns[random as usize % turns.len()]
            })
            .await;
        stage
            .check(&world, &committed, &format!("{lives:?} deleted={deleted} run {run} of seed {seed}"))
            .await;
    }
}

/// Whether the servers run. If not, says that `test` is left out.
fn are_servers_there(test: &str) -> bool {
    let there = std::env::var_os("GRAVITON_TEST_POSTGRES").is_some();
    if !there {
        left_out::leave_out(test, "no servers run; start the tests through tests/servers");
    }
    there
}

fn schedules() -> u64 {
    std::env::var("GRAVITON_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_two_short_lives() {
    if !are_servers_there("every_order_of_two_short_lives") {
        return;
    }
    let most = schedules() as usize * 10;
    let mut total = 0;
    for (lives, deleted) in [
        ([PinAndCommit, Delete], false),
        ([PinAndCommit, Expire], false),
        ([Restore, Delete], true),
        ([Restore, PutWhole], true),
        ([PinAndCommit, Verify], false),
    ] {
        total += all_schedules(lives, deleted, most).await;
    }
    println!("{total} schedules");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_orders_of_whole_lives() {
    if !are_servers_there("random_orders_of_whole_lives") {
        return;
    }
    for (number, (lives, deleted)) in [
        (vec![PutSame, Collect], true),
        (vec![PutBoth, DoomAndRemove], true),
        (vec![Collect, Collect], true),
        (vec![Restore, Collect], true),
        (vec![PutWhole, Collect], true),
        (vec![Expire, PinAndCommit, Collect], true),
        (vec![PutSame, Collect, Collect], true),
        (vec![PutSame, Delete, Collect], false),
        (vec![PutBoth, PutSame, Collect], true),
        (vec![PutWhole, PutBoth, Collect], true),
        (vec![PutSame, CollectAndDie], true),
        (vec![PutBoth, CollectAndDie, Collect], true),
        (vec![PutWhole, CollectAndDie, Tidy], true),
        (vec![PutSame, CollectAndDie, Tidy], true),
        (vec![PutWhole, Collect, Tidy], true),
        (vec![PutSame, Restore, Collect], true),
        (vec![PutBoth, Verify, Collect], true),
    ]
    .into_iter()
    .enumerate()
    {
        all_pauses(&lives, deleted).await;
        random_schedules(&lives, deleted, schedules(), number as u64 + 1).await;
    }
}
