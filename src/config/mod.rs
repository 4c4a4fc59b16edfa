//! Every setting: its name, its default, its bounds and its description, declared once.

mod bounds;
mod database_url;
mod edge;
mod error;
mod identity;
mod ingest;
mod limits;
mod settings;

pub use self::database_url::DatabaseUrl;
pub use self::edge::{EdgeSettings, Origins};
pub use self::error::ConfigError;
pub use self::identity::{AuthMode, IdentitySettings, JwtAlgorithm};
pub use self::ingest::{Ingest, UnknownIngest};
pub use self::limits::{LimitSettings, Networks};
pub use self::settings::{Config, LogFormat};
