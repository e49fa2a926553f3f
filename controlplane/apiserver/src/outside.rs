//! The API server's word on who somebody is and what he may do, for what is answered beside it.

use shoal_api::Status;
use shoal_api::rbac::bootstrap::{IMAGES, PUSH, REGISTRY};

use crate::authentication::user::User;
use crate::authorization::{self, Attributes};
use crate::{ApiServer, Peer, authentication};

impl ApiServer {
    /// Who `peer` is: by its certificate, else by `token`; none if it shows neither.
    ///
    /// # Errors
    /// 401 for a token that is not accepted.
    pub async fn identify(&self, peer: &Peer, token: Option<&str>) -> Result<Option<User>, Status> {
        let config = &self.shared.config;
        let user = authentication::of(peer, token, &config.service_account_key, &config.store).await?;
        Ok(Some(user).filter(|user| !user.is_anonymous()))
    }

    /// Whether the user may push images into a repository of the cluster's registry, and delete them there: the verb `push` on
    /// `images` of `registry.shoal.dev`, by the repository's name.
    pub fn may_push(&self, user: &User, repository: &str) -> bool {
        let attributes = Attributes {
            verb: PUSH.to_owned(),
            group: REGISTRY.to_owned(),
            resource: IMAGES.to_owned(),
            name: repository.to_owned(),
            ..Attributes::default()
        };
        authorization::allows(&self.shared, user, &attributes)
    }
}
