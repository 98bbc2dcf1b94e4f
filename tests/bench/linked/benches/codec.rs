//! One push through the codec of a provider, alone and in a batch: natively, warm, fresh for each call.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pushlet_bench::linked::Subject;
use pushlet_linked::codec::Codec;

fn codec(criterion: &mut Criterion) {
    for subject in Subject::ALL {
        for targets in [1, 50] {
            let name = format!("encode and decode, {}, {targets} targets", subject.name());
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(targets as u64));
            for mode in subject.modes() {
                let Ok(codec) = Codec::new(subject, *mode, targets) else { continue };
                group.bench_function(mode.name(), |bencher| {
                    bencher.iter(|| codec.push().ok());
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
