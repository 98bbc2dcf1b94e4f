//! Applications that files of the operator describe: registered at the start and by a reload, removed once their file is
//! gone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::gateway::Gateway;
use crate::registration::Registration;
use pushlet_credential::UploadedSecrets;
use pushlet_model::contract::Environment;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;
use pushlet_registry::{ApplicationEntry, RegisteredApplication};
use pushlet_settings::Problem;
use pushlet_settings::applications::ApplicationFile;

/// What files change, checked but not stored.
pub struct FileChanges {
    registered: Vec<CheckedApplication>,
    /// Applications whose file is gone, by tenant and id.
    removed: Vec<(TenantId, String)>,
    /// Why files are not taken on.
    pub problems: Vec<Problem>,
}

struct CheckedApplication {
    tenant: TenantId,
    application: RegisteredApplication,
    secrets: UploadedSecrets,
    mac: String,
}

impl Gateway {
    /// Checks what files describe, as a registration is checked. None: applications do not come from files.
    pub async fn check_files(&self, files: Option<&[ApplicationFile]>) -> FileChanges {
        let mut changes = FileChanges { registered: Vec::new(), removed: Vec::new(), problems: Vec::new() };
        let Some(files) = files else { return changes };
        let mut described = HashSet::new();
        for file in files {
            let tenant = tenant_of(file);
            described.insert((tenant.clone(), file.id.clone()));
            match self.check_file(tenant, file).await {
                Ok(checked) => changes.registered.extend(checked),
                Err(problem) => changes.problems.push(problem),
            }
        }
        let all = self.0.registry.all().into_iter();
        let gone = |(tenant, entry): (TenantId, Arc<ApplicationEntry>)| {
            let place = (tenant, entry.id.clone());
            (entry.description.is_from_file() && !described.contains(&place)).then_some(place)
        };
        changes.removed.extend(all.filter_map(gone));
        changes
    }

    /// Stores what was checked. Returns the applications that are registered or removed, as `tenant/id`. Applications
    /// that come from files can only be changed there from now on. `there_are`: files describe applications.
    pub async fn take_files(&self, changes: FileChanges, there_are: bool) -> Result<Vec<String>, Error> {
        self.0.registry.set_files(there_are);
        let mut taken = Vec::new();
        for CheckedApplication { tenant, application, secrets, mac } in changes.registered {
            let _permit = self.0.tenants.acquire_registration_permit(&tenant).await?;
            let (registry, owner) = (self.0.registry.clone(), tenant.clone());
            let put = move || registry.put_from_file(&owner, application, &secrets, mac);
            let (entry, replaced) = tokio::task::spawn_blocking(put).await.map_err(Error::internal)??;
            self.take_on_registration(&tenant, &entry, replaced);
            taken.push(format!("{tenant}/{}", entry.id));
        }
        for (tenant, id) in changes.removed {
            let (registry, owner) = (self.0.registry.clone(), tenant.clone());
            let remove = move || registry.remove_from_file(&owner, &id);
            let removed = tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
            taken.push(format!("{tenant}/{}", removed.id));
            self.retire_connections(tenant, removed);
        }
        Ok(taken)
    }

    /// Returns None if the application is as the file says.
    async fn check_file(
        &self,
        tenant: TenantId,
        file: &ApplicationFile,
    ) -> Result<Option<CheckedApplication>, Problem> {
        let wrong = |error: Error| {
            Problem::new(format_args!("{}: {} ({})", file.path.display(), error.message, error.code))
        };
        self.0.tenants.get(&tenant).map_err(wrong)?;
        let registration = registration(file)?;
        let mac = self.0.registry.file_mac(&content(&registration));
        if self.0.registry.is_as_file(&tenant, &file.id, &mac) {
            return Ok(None);
        }
        let checked = self.check_registration(&tenant, registration).await;
        let (application, secrets) = checked.map_err(wrong)?;
        Ok(Some(CheckedApplication { tenant, application, secrets, mac }))
    }
}

fn tenant_of(file: &ApplicationFile) -> TenantId {
    file.tenant.as_deref().map_or_else(TenantId::default_tenant, TenantId::new)
}

fn registration(file: &ApplicationFile) -> Result<Registration, Problem> {
    let text = |(name, value): (&String, &String)| (name.clone(), value.clone().into_bytes());
    let mut fields: BTreeMap<_, _> = file.settings.iter().map(text).collect();
    for (name, mut secret) in file.secrets()? {
        fields.insert(name, std::mem::take(&mut *secret));
    }
    let (id, provider) = (Some(file.id.clone()), file.provider.clone());
    Ok(Registration { application_id: id, provider, environment: file.environment, fields, strict: true })
}

/// Returns all that the application is made from.
fn content(registration: &Registration) -> Vec<&[u8]> {
    let environment: &[u8] = match registration.environment {
        None => b"",
        Some(Environment::Production) => b"production",
        Some(Environment::Development) => b"development",
    };
    let provider = registration.provider.as_deref().unwrap_or_default().as_bytes();
    let fields = registration.fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
    [provider, environment].into_iter().chain(fields).collect()
}
