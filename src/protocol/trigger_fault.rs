//! What can be wrong with the triggers that write the log.

use enum_map::Enum;
use strum::{EnumString, IntoStaticStr};

/// Why changes of a table may make no event, or each make two. The name is the label of a metric, and what the query
/// of the catalogue returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enum, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TriggerFault {
    /// There is no table of this name.
    TableMissing,
    /// The table has no trigger of ours: it was dropped or replaced, or the table is a new one.
    Missing,
    /// The trigger is disabled, on the table or on a partition of it, or does not fire in every session.
    Disabled,
    /// The table has two triggers of ours.
    Twice,
    /// The application's own notifying trigger stands beside ours.
    ApplicationTrigger,
    /// Row security hides the table's rows from the trigger's function.
    RowSecurity,
    /// The owner of the trigger's function may not call the one that writes the log: no event is written.
    Rights,
    /// Logical replication writes the table, and fires no statement trigger.
    Subscription,
    /// A publication of all tables copies the log to other databases, where it means nothing.
    PublicationForAllTables,
}

impl TriggerFault {
    /// What an operator does about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::TableMissing => {
                "a source of your own: attach its kind again by the table's new name, or detach it; a table of HushNet's: \
                 give it its name back"
            }
            Self::Missing | Self::Disabled | Self::Twice | Self::Rights => {
                "run hushnet-realtime migrate up"
            }
            Self::ApplicationTrigger => {
                "run hushnet-realtime migrate up, which removes it and remembers it for migrate down; take it out of the \
                 application's deployment"
            }
            Self::RowSecurity => {
                "let the schema realtime be owned by a role that row security does not restrict: ALTER ROLE ... \
                 BYPASSRLS, or the table's owner without FORCE ROW LEVEL SECURITY"
            }
            Self::Subscription => {
                "serve the database that is written by the application, not a logical replica of it; a table of your own \
                 is attached with --replica"
            }
            Self::PublicationForAllTables => {
                "publish the application's tables by name, without those of schema realtime"
            }
        }
    }
}
