//! One push through the codec of a provider, alone and in a batch: natively, warm, fresh for each call.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pushlet_bench::linked::Mode;
use pushlet_linked::codec::Codec;

fn codec(criterion: &mut Criterion) {
    for targets in [1, 100] {
        let mut group = criterion.benchmark_group(format!("encode and decode, {targets} targets"));
        group.throughput(Throughput::Elements(targets as u64));
        for mode in Mode::ALL {
            let Ok(codec) = Codec::new(mode, targets) else { continue };
            group.bench_function(mode.name(), |bencher| {
                bencher.iter(|| codec.push().ok());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
