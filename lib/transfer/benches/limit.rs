//! What a chunk pays for the rate limits: `cargo bench -p shoal-transfer --bench limit`.

use std::time::Duration;

use divan::{Bencher, black_box};
use prometheus::Counter;
use shoal_swarm::{Moment, Priority};
use shoal_transfer::limit::{Limiter, Limits, Next, Rate, Shaper};
use tokio::runtime::Builder;

fn main() {
    divan::main();
}

const CHUNK: u32 = 64 << 10;

fn limits(bytes_per_second: u64) -> Limits {
    let rate = Rate::new(bytes_per_second);
    Limits { total: rate, repair: Rate::new(bytes_per_second / 2), ..Limits::default() }
}

/// Somebody who is below the rate: granted at once and settled, 100 us after the last, so that 1,000 are remembered.
#[divan::bench]
fn grant(bencher: Bencher<'_, '_>) {
    let mut shaper = Shaper::new(&limits(10_000_000_000));
    let mut now = Moment::default();
    bencher.bench_local(move || {
        now.0 += Duration::from_micros(100);
        let bytes = shaper.grant(now, Priority::Repair, black_box(CHUNK)).expect("it is below the rate");
        shaper.settle(now, Priority::Repair, bytes, bytes);
    });
}

/// One of so many who always wait: its turn, its bytes, and back into the line.
#[divan::bench(args = [1, 32, 1024])]
fn turn(bencher: Bencher<'_, '_>, waiting: usize) {
    let mut shaper = Shaper::new(&limits(300_000_000));
    let mut now = Moment::default();
    for _ in 0..waiting {
        shaper.join(Priority::Repair, CHUNK);
    }
    bencher.bench_local(move || {
        loop {
            match shaper.poll(now) {
                Next::Granted(_, bytes) => {
                    shaper.settle(now, Priority::Repair, bytes, bytes);
                    break shaper.join(Priority::Repair, black_box(CHUNK));
                }
                Next::At(at) => now = at,
                Next::Never => unreachable!("somebody waits"),
            }
        }
    });
}

/// The whole of a `take` that does not wait, without a limit and far below one.
#[divan::bench(args = [false, true])]
fn take(bencher: Bencher<'_, '_>, is_limited: bool) {
    let waited = [(); 3].map(|()| Counter::new("waited", "Seconds.").expect("the name is one"));
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime needs nothing");
    let limits = if is_limited { limits(1_000_000_000_000_000) } else { Limits::default() };
    let limiter = runtime.block_on(async { Limiter::new(&limits, waited) });
    bencher.bench_local(move || {
        let mut take = std::pin::pin!(limiter.take(Priority::Reader, black_box(CHUNK)));
        futures_util::FutureExt::now_or_never(&mut take).expect("it does not wait")
    });
}
