//! Component files, in an object store.

use std::time::Duration;

use async_nats::jetstream::object_store;
use tokio::io::AsyncReadExt as _;

use super::connection::{NatsConnection, unreachable};
use crate::storage::StorageError;

/// The longest wait for a component file.
const TRANSFER: Duration = Duration::from_secs(60);
/// The bucket of component files.
const BUCKET: &str = "pushlet";
/// What a reader of an object may meet while it is being replaced, or before a follower has it.
const TRIES: u32 = 5;

impl NatsConnection {
    /// Stores a component file. Blocks.
    pub fn put_blob(&self, name: String, bytes: Vec<u8>) -> Result<(), StorageError> {
        self.check()?;
        let bucket = self.bucket();
        self.wait(TRANSFER, async move {
            let bucket = bucket.await?;
            bucket.put(name.as_str(), &mut bytes.as_slice()).await.map(drop).map_err(unreachable)
        })
    }

    /// Returns a component file; None: there is none. Blocks.
    pub fn blob(&self, name: String, most: u64) -> Result<Option<Vec<u8>>, StorageError> {
        let bucket = self.bucket();
        self.wait(TRANSFER, async move {
            let bucket = bucket.await?;
            for _ in 0..TRIES {
                if let Some(bytes) = read_blob(&bucket, &name, most).await? {
                    return Ok(Some(bytes));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(None)
        })
    }

    /// Removes a component file, soon.
    pub fn remove_blob(&self, name: String) {
        let bucket = self.bucket();
        self.spawn(async move {
            let removed = match bucket.await {
                Ok(bucket) => bucket.delete(&name).await.map_err(unreachable),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::debug!(name, %error, "a component file that is not needed stays in the registry");
            }
        });
    }

    fn bucket(
        &self,
    ) -> impl Future<Output = Result<object_store::ObjectStore, StorageError>> + Send + 'static + use<> {
        let (jetstream, replicas) = (self.jetstream().clone(), self.replicas());
        async move {
            if let Ok(bucket) = jetstream.get_object_store(BUCKET).await {
                return Ok(bucket);
            }
            let config = |num_replicas| object_store::Config {
                bucket: BUCKET.to_owned(),
                num_replicas,
                ..object_store::Config::default()
            };
            match jetstream.create_object_store(config(replicas)).await {
                Ok(bucket) => Ok(bucket),
                Err(_) if replicas > 1 => jetstream.create_object_store(config(1)).await.map_err(unreachable),
                Err(error) => Err(unreachable(error)),
            }
        }
    }
}

/// Reads an object; None: it is not there now.
async fn read_blob(
    bucket: &object_store::ObjectStore,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>, StorageError> {
    use object_store::GetErrorKind as Kind;
    let object = match bucket.get(name).await {
        Ok(object) => object,
        Err(error) if matches!(error.kind(), Kind::NotFound) => return Ok(None),
        Err(error) => return Err(unreachable(error)),
    };
    let mut bytes = Vec::new();
    // The reader checks the digest, and fails if the object is replaced meanwhile.
    match object.take(most).read_to_end(&mut bytes).await {
        Ok(_) => Ok(Some(bytes)),
        Err(_) => Ok(None),
    }
}
