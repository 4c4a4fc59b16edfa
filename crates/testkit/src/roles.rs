//! The roles that docs/operations.md has: the tables' owner, the service, the application. None is a superuser.

use sqlx::PgConnection;

use crate::database::execute;

/// Owns the database and the application's tables, and runs `migrate up`.
pub const OWNER: &str = "hushnet_owner";
/// The service connects as this role. It owns nothing.
pub const SERVICE: &str = "hushnet_serve";
/// The application writes as this role.
pub const APPLICATION: &str = "hushnet_app";

/// Creates the roles in a cluster that does not have them. The connection is an administrator's, to the database that
/// all callers use for this.
pub async fn create(admin: &mut PgConnection) {
    for role in [OWNER, SERVICE, APPLICATION] {
        let create = format!(
            "DO $$ BEGIN
                 PERFORM pg_advisory_xact_lock(hashtext('roles'));
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                     CREATE ROLE {role} LOGIN;
                 END IF;
             END $$"
        );
        execute(admin, &create).await;
    }
}

/// Lets the application write its tables, as their owner.
pub async fn let_application_write(owner: &mut PgConnection) {
    let grant = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APPLICATION}"
    );
    execute(owner, &grant).await;
}

/// Lets the service read what it has to in a database without a log, as the tables' owner.
pub async fn let_service_read(owner: &mut PgConnection) {
    let grant = format!("GRANT SELECT ON messages, pending_sessions, devices, users TO {SERVICE}");
    execute(owner, &grant).await;
}

/// The address of a database with another role.
#[must_use]
pub fn url_as(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    format!("{scheme}://{role}@{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_role_of_an_address_is_another() {
        assert_eq!(
            url_as("postgres://hushnet@localhost:5432/name?host=/run", SERVICE),
            "postgres://hushnet_serve@localhost:5432/name?host=/run"
        );
    }
}
