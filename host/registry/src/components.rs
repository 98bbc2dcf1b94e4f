//! Uploaded components: a tenant's providers by name, each in versions by digest.

use std::time::SystemTime;

use ring::digest::{SHA256, digest};

use super::storage::{RecordKey, StorageChange, StorageError, Table};
use super::version::{ComponentVersion, ComponentVersions, written};
use super::{Registry, authentic};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

impl Registry {
    /// What is kept of components, of all tenants.
    pub fn versions(&self) -> Vec<ComponentVersion> {
        self.all_versions().values().cloned().collect()
    }

    /// How many versions the tenant has, and their bytes.
    pub fn component_usage(&self, tenant: &TenantId) -> (usize, u64) {
        let all = self.all_versions();
        let own = all.values().filter(|version| version.tenant == *tenant);
        own.fold((0, 0), |(count, bytes), version| (count + 1, bytes + version.size))
    }

    /// Keeps a version with its file; one with the same digest is replaced. Blocks.
    pub fn put_component(&self, version: &ComponentVersion, component: &[u8]) -> Result<(), Error> {
        let _order = self.changing();
        let place = (version.tenant.clone(), version.name.clone(), version.digest.clone());
        let key = key(&version.tenant, &version.name, &version.digest);
        self.journal.commit(vec![
            StorageChange::Put(Table::Components, key.clone(), component.to_vec()),
            authentic::put(&self.hasher, Table::Versions, key, &written(version)?),
        ])?;
        self.all_versions_mut().insert(place, version.clone());
        Ok(())
    }

    /// The component file, as it was uploaded; None: it is not kept. Blocks.
    pub fn component(&self, tenant: &TenantId, name: &str, wanted: &str) -> Result<Option<Vec<u8>>, Error> {
        let component = self.storage.get(Table::Components, &key(tenant, name, wanted))?;
        match component {
            Some(bytes) if hex::encode(digest(&SHA256, &bytes)) != wanted => {
                Err(StorageError::Corrupt("a component is not what was uploaded".into()).into())
            }
            component => Ok(component),
        }
    }

    /// Makes a version that is kept the active one. Blocks.
    pub fn activate_component(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: &str,
        at: SystemTime,
    ) -> Result<(), Error> {
        let _order = self.changing();
        let place = (tenant.clone(), name.to_owned(), digest.to_owned());
        let Some(mut version) = self.all_versions().get(&place).cloned() else {
            let message = format!("there is no version {digest} of {name}");
            return Err(Error::new(Kind::NotFound, "version_not_found", message));
        };
        version.activated = at;
        let key = key(tenant, name, digest);
        let change = authentic::put(&self.hasher, Table::Versions, key, &written(&version)?);
        self.journal.commit(vec![change])?;
        self.all_versions_mut().insert(place, version);
        Ok(())
    }

    /// Forgets a version. Blocks.
    pub fn remove_component(&self, tenant: &TenantId, name: &str, digest: &str) -> Result<(), Error> {
        let _order = self.changing();
        let key = key(tenant, name, digest);
        let tables = [Table::Components, Table::Versions];
        self.journal.commit(tables.map(|table| StorageChange::Delete(table, key.clone())).into())?;
        self.all_versions_mut().remove(&(tenant.clone(), name.to_owned(), digest.to_owned()));
        Ok(())
    }

    pub(super) fn forget_versions(&self, tenant: &TenantId) {
        self.all_versions_mut().retain(|(owner, ..), _| owner != tenant);
    }

    fn all_versions(&self) -> parking_lot::RwLockReadGuard<'_, ComponentVersions> {
        self.versions.read()
    }

    fn all_versions_mut(&self) -> parking_lot::RwLockWriteGuard<'_, ComponentVersions> {
        self.versions.write()
    }
}

fn key(tenant: &TenantId, name: &str, digest: &str) -> RecordKey {
    RecordKey::new(&[tenant.as_str(), name, digest])
}
